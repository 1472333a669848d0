// SPDX-License-Identifier: Apache-2.0
import { chmodSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { expect, test } from "vitest";
import { filesBelow, plainMode, Tree } from "../../../install/image/tree.ts";
import { ScratchDir } from "../../support/scratch-dir.ts";

test.each(["", "/etc/passwd", "a//b", "a/", "../up", "a/../b", "./a", "a\0b"])(
  "%j is no path inside an image",
  (path) => {
    expect(() => new Tree().text(path, "")).toThrow("not a path inside an image");
  },
);

test("a path is given once", () => {
  const tree = new Tree();
  tree.text("a", "");
  expect(() => tree.symlink("a", "b")).toThrow("twice in one layer: a");
});

test("nothing lies below a file or a symlink", () => {
  const tree = new Tree();
  tree.symlink("lib", "usr/lib");
  tree.text("lib/libc.so.6", "");
  expect(() => tree.entries()).toThrow("lib/libc.so.6 lies below lib, which is a symlink");
});

test("a folder's files and links are found with their targets; of its modes only 'may be run' counts", () => {
  using dir = new ScratchDir();
  mkdirSync(dir.file("deep/er"), { recursive: true });
  writeFileSync(dir.file("deep/er/setuid"), "");
  chmodSync(dir.file("deep/er/setuid"), 0o6775);
  writeFileSync(dir.file("deep/open"), "");
  chmodSync(dir.file("deep/open"), 0o666);
  symlinkSync("nowhere", dir.file("deep/a-link"));
  expect(filesBelow(dir.path)).toEqual([
    { path: "deep/a-link", symlink: "nowhere" },
    { path: "deep/er/setuid", symlink: undefined },
    { path: "deep/open", symlink: undefined },
  ]);
  expect(plainMode(dir.file("deep/er/setuid"))).toBe(0o755);
  expect(plainMode(dir.file("deep/open"))).toBe(0o644);
});
