// SPDX-License-Identifier: Apache-2.0
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { expect, test } from "vitest";
import { writeTar } from "../../../install/image/tar.ts";
import { Tree } from "../../../install/image/tree.ts";
import { ScratchDir } from "../../support/scratch-dir.ts";

const LONG = `${"directory-of-some-length/".repeat(6)}file-${"x".repeat(120)}`;

function sample(dir: ScratchDir): Tree {
  writeFileSync(dir.file("source"), "from a file");
  const tree = new Tree();
  tree.text("b/z", "text");
  tree.file("b-first", dir.file("source"), 0o755);
  tree.text(LONG, "deep");
  tree.text("b/naïve", "not ASCII");
  tree.symlink("link", "b/z");
  tree.symlink("far", `/${"y".repeat(150)}`);
  tree.directory("tmp", 0o1777);
  return tree;
}

test("what it writes is what GNU tar reads: root's, of time 0, sorted, with every directory", () => {
  using dir = new ScratchDir();
  const tar = dir.file("a.tar");
  writeTar(tar, sample(dir).entries());
  const list = execFileSync("tar", ["--numeric-owner", "--utc", "--full-time", "-tvf", tar], {
    encoding: "utf8",
    env: { ...process.env, LC_ALL: "C.UTF-8" },
  });
  expect(
    list
      .trimEnd()
      .split("\n")
      .map((line) => line.replace(/ +/g, " ")),
  ).toEqual([
    "drwxr-xr-x 0/0 0 1970-01-01 00:00:00 b/",
    "-rwxr-xr-x 0/0 11 1970-01-01 00:00:00 b-first",
    "-rw-r--r-- 0/0 9 1970-01-01 00:00:00 b/naïve",
    "-rw-r--r-- 0/0 4 1970-01-01 00:00:00 b/z",
    ...[1, 2, 3, 4, 5, 6].map(
      (depth) => `drwxr-xr-x 0/0 0 1970-01-01 00:00:00 ${"directory-of-some-length/".repeat(depth)}`,
    ),
    `-rw-r--r-- 0/0 4 1970-01-01 00:00:00 ${LONG}`,
    `lrwxrwxrwx 0/0 0 1970-01-01 00:00:00 far -> /${"y".repeat(150)}`,
    "lrwxrwxrwx 0/0 0 1970-01-01 00:00:00 link -> b/z",
    "drwxrwxrwt 0/0 0 1970-01-01 00:00:00 tmp/",
  ]);
  const out = dir.file("out");
  mkdirSync(out);
  execFileSync("tar", ["-xf", tar, "-C", out]);
  expect(readFileSync(`${out}/${LONG}`, "utf8")).toBe("deep");
  expect(readFileSync(`${out}/b-first`, "utf8")).toBe("from a file");
  expect(readlinkSync(`${out}/far`)).toBe(`/${"y".repeat(150)}`);
});

test.each([99, 100, 101, 102, 255, 256, 1000])("a name of %i bytes comes back", (length) => {
  using dir = new ScratchDir();
  const name = "n".repeat(length);
  const tree = new Tree();
  tree.text(name, "x");
  const tar = dir.file("a.tar");
  writeTar(tar, tree.entries());
  expect(execFileSync("tar", ["-tf", tar], { encoding: "utf8" })).toBe(`${name}\n`);
});

test("the same tree is the same bytes in whatever order it grew; size and SHA-256 are the file's", () => {
  using dir = new ScratchDir();
  const forward = sample(dir).entries();
  const backward = new Tree();
  for (const entry of [...forward].reverse()) backward.add(entry);
  const first = writeTar(dir.file("a.tar"), forward);
  const second = writeTar(dir.file("b.tar"), backward.entries());
  const bytes = readFileSync(dir.file("a.tar"));
  expect(readFileSync(dir.file("b.tar")).equals(bytes)).toBe(true);
  expect(second).toEqual(first);
  expect(first).toEqual({ sha256: createHash("sha256").update(bytes).digest("hex"), size: bytes.length });
  expect(bytes.length % 512).toBe(0);
});
