// SPDX-License-Identifier: Apache-2.0
import { mkdirSync, renameSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from "node:fs";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { DirectoryWatch } from "../../../src/sys/watch-dir.ts";
import { ScratchDir } from "../../support/scratch-dir.ts";

let dir: ScratchDir;
let watch: DirectoryWatch;
let events: number;
beforeEach(() => {
  dir = new ScratchDir("/dev/shm");
  events = 0;
});
afterEach(() => {
  watch.close();
  dir[Symbol.dispose]();
});

const open = (name: string) => {
  watch = new DirectoryWatch(dir.file(name), () => {
    events++;
  });
};
/** Does something, and waits until it is told; then looks what is there now, as an owner would. */
async function told(act: () => void): Promise<void> {
  const before = events;
  act();
  await vi.waitFor(() => expect(events).toBeGreaterThan(before), { timeout: 5000, interval: 2 });
  expect(await watch.refresh()).toBeUndefined();
}

test("a file in it comes, changes, is renamed, goes", async () => {
  mkdirSync(dir.file("d"));
  open("d");
  expect(await watch.refresh()).toBeUndefined();
  await told(() => writeFileSync(dir.file("d/a"), "1"));
  await told(() => writeFileSync(dir.file("d/a"), "2"));
  await told(() => renameSync(dir.file("d/a"), dir.file("d/b")));
  await told(() => unlinkSync(dir.file("d/b")));
});

test("the directory comes step by step, goes and comes again", async () => {
  open("a/b/c");
  expect(await watch.refresh()).toBeUndefined();
  for (let round = 0; round < 3; round++) {
    await told(() => mkdirSync(dir.file("a")));
    await told(() => mkdirSync(dir.file("a/b")));
    await told(() => mkdirSync(dir.file("a/b/c")));
    await told(() => writeFileSync(dir.file("a/b/c/file"), ""));
    await told(() => rmSync(dir.file("a"), { recursive: true }));
  }
});

test("all at once, and another directory under the same name", async () => {
  open("a/b");
  expect(await watch.refresh()).toBeUndefined();
  await told(() => mkdirSync(dir.file("a/b"), { recursive: true }));
  await told(() => {
    renameSync(dir.file("a/b"), dir.file("a/old"));
    mkdirSync(dir.file("a/b"));
  });
  await told(() => writeFileSync(dir.file("a/b/file"), ""));
});

test("a file in its place, a link to nowhere and to itself count as no directory yet", async () => {
  for (const make of [() => symlinkSync("nowhere", dir.file("d")), () => symlinkSync("d", dir.file("d"))]) {
    make();
    open("d");
    expect(await watch.refresh()).toBeUndefined();
    await told(() => unlinkSync(dir.file("d")));
    await told(() => mkdirSync(dir.file("d")));
    await told(() => writeFileSync(dir.file("d/file"), ""));
    watch.close();
    rmSync(dir.file("d"), { recursive: true });
  }
});

test("through a symbolic link that leads elsewhere later: seen at the next refresh", async () => {
  for (const name of ["one", "two"]) mkdirSync(dir.file(name));
  symlinkSync("one", dir.file("d"));
  open("d");
  expect(await watch.refresh()).toBeUndefined();
  await told(() => writeFileSync(dir.file("one/file"), ""));
  unlinkSync(dir.file("d"));
  symlinkSync("two", dir.file("d"));
  expect(await watch.refresh()).toBeUndefined();
  await told(() => writeFileSync(dir.file("two/file"), ""));
});

test("why nothing can be watched is said, and it is tried again", async () => {
  open("x".repeat(300));
  expect(await watch.refresh()).toContain("ENAMETOOLONG");
  expect(await watch.refresh()).toContain("ENAMETOOLONG");
});

test("nothing is told after close", async () => {
  mkdirSync(dir.file("d"));
  open("d");
  await watch.refresh();
  watch.close();
  expect(await watch.refresh()).toBeUndefined();
  writeFileSync(dir.file("d/file"), "");
  await new Promise((resolve) => setTimeout(resolve, 30));
  expect(events).toBe(0);
});
