// SPDX-License-Identifier: Apache-2.0
import { fstatSync, openSync } from "node:fs";
import { afterEach, expect, test, vi } from "vitest";
import { OwnedFd } from "../../../src/native/fd.ts";

const opened = () => openSync("/dev/null", "r");

afterEach(() => {
  vi.unstubAllEnvs();
  expect(OwnedFd.open()).toEqual([]);
});

test("close closes once, and use after it throws with the name", () => {
  const fd = opened();
  const owned = OwnedFd.adopt(fd, "a test file");
  expect(owned.fd).toBe(fd);
  owned.close();
  expect(() => fstatSync(fd)).toThrow("EBADF");
  const reused = opened();
  expect(reused).toBe(fd);
  owned.close();
  expect(fstatSync(reused).isCharacterDevice()).toBe(true);
  expect(owned.closed).toBe(true);
  expect(() => owned.fd).toThrow("a test file is closed");
  OwnedFd.adopt(reused, "reused").close();
});

test("release hands the number out and forgets it", () => {
  const owned = OwnedFd.adopt(opened(), "a test file");
  const fd = owned.release();
  owned.close();
  expect(fstatSync(fd).isCharacterDevice()).toBe(true);
  expect(() => owned.release()).toThrow("a test file is closed");
  OwnedFd.adopt(fd, "again").close();
});

test("open fds are listed, with the stack that adopted them when traced", () => {
  const plain = OwnedFd.adopt(opened(), "plain");
  vi.stubEnv("AMBIENT_CNI_TRACE_FDS", "1");
  const traced = OwnedFd.adopt(opened(), "traced");
  expect(OwnedFd.open()).toEqual([
    { fd: plain.fd, what: "plain", stack: undefined },
    { fd: traced.fd, what: "traced", stack: expect.stringContaining("fd.test.ts") },
  ]);
  plain.close();
  traced.close();
});

test("using closes at the end of the block", () => {
  const fd = opened();
  {
    using _owned = OwnedFd.adopt(fd, "scoped");
  }
  expect(() => fstatSync(fd)).toThrow("EBADF");
});
