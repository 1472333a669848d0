// SPDX-License-Identifier: Apache-2.0
// The leak check of the native tests: no fd and no thread may stay where a call put it.
import { afterEach, beforeEach, expect } from "vitest";
import { OwnedFd } from "../../src/native/fd.ts";
import { native } from "../../src/native/load.ts";
import { ourFds, threadNetns } from "./process-fds.ts";

/** Each test of the file must leave fds and threads as it found them. */
export function guardFds(): void {
  let before: readonly string[] = [];
  let home: readonly string[] = [];
  beforeEach(() => {
    // Loaded, it keeps an fd of its own: the way home for threads that enter a netns.
    native();
    before = ourFds();
    home = threadNetns();
  });
  afterEach(() => {
    expect(OwnedFd.open()).toEqual([]);
    expect(ourFds().filter((fd) => !before.includes(fd))).toEqual([]);
    expect(threadNetns()).toEqual(home);
  });
}
