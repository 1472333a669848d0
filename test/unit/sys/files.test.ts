// SPDX-License-Identifier: Apache-2.0
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { open } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import {
  atomicWrite,
  holdsBytes,
  overwriteShorter,
  readBounded,
  readRegular,
  requireSocketPath,
} from "../../../src/sys/files.ts";

let dir = "";
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "ambient-files-"));
});
afterEach(() => rmSync(dir, { recursive: true }));

test("atomicWrite replaces bytes and mode, and leaves nothing else", async () => {
  const path = join(dir, "conf");
  writeFileSync(path, "old");
  chmodSync(path, 0o644);
  await atomicWrite(path, "new", 0o666);
  expect(readFileSync(path, "utf8")).toBe("new");
  expect(statSync(path).mode & 0o777).toBe(0o666);
  expect(readdirSync(dir)).toEqual(["conf"]);
});

test("atomicWrite never truncates in place: an open reader keeps the old bytes", async () => {
  const path = join(dir, "conf");
  writeFileSync(path, "old");
  const before = statSync(path).ino;
  await atomicWrite(path, Buffer.from([0, 255]), 0o600);
  expect(statSync(path).ino).not.toBe(before);
  expect([...readFileSync(path)]).toEqual([0, 255]);
});

test("leftovers of crashed runs go, other files stay", async () => {
  const ours = ["conf.tmp.0123456789ab", "conf.tmp.1234567"];
  const others = ["conf.tmp", "conf.tmp.", "conf.tmp.new", "conf.tmp.0123456789abc", "other.tmp.0123456789ab"];
  for (const name of [...ours, ...others]) writeFileSync(join(dir, name), "");
  await atomicWrite(join(dir, "conf"), "x", 0o600);
  expect(readdirSync(dir).sort()).toEqual(["conf", ...others].sort());
});

test("many writers of one file: one of them wins, whole", async () => {
  const path = join(dir, "conf");
  const texts = Array.from({ length: 20 }, (_, i) => String(i).repeat(10_000));
  await Promise.all(texts.map((text) => atomicWrite(path, text, 0o600)));
  expect(texts).toContain(readFileSync(path, "utf8"));
  expect(readdirSync(dir)).toEqual(["conf"]);
});

test("a failed write leaves the old file and no temporary one", async () => {
  await expect(atomicWrite(join(dir, "missing", "conf"), "x", 0o600)).rejects.toMatchObject({ code: "ENOENT" });
  symlinkSync("/dev/null", join(dir, "link"));
  await atomicWrite(join(dir, "link"), "x", 0o600);
  expect(readFileSync(join(dir, "link"), "utf8")).toBe("x");
  expect(readdirSync(dir)).toEqual(["link"]);
});

test("readBounded: exactly the bound, one more, and a file of /proc", async () => {
  const path = join(dir, "file");
  writeFileSync(path, "x".repeat(100_000));
  expect((await readBounded(path, 100_000)).length).toBe(100_000);
  await expect(readBounded(path, 99_999)).rejects.toMatchObject({
    code: "FILE_TOO_LARGE",
    message: expect.stringContaining(path),
  });
  expect((await readBounded("/proc/self/stat", 4096)).toString()).toMatch(/^\d+ \(/);
  await expect(readBounded(join(dir, "none"), 1)).rejects.toMatchObject({ code: "ENOENT" });
});

test("requireSocketPath: nothing or a socket may be there, and nothing else", async () => {
  const path = join(dir, "s.sock");
  requireSocketPath(path);
  const server = createServer().listen(path);
  await new Promise((resolve) => server.once("listening", resolve));
  requireSocketPath(path);
  await new Promise((resolve) => server.close(resolve));

  writeFileSync(path, "mine");
  expect(() => requireSocketPath(path)).toThrow(/s\.sock is a file, not a socket/);
  symlinkSync(path, join(dir, "link"));
  expect(() => requireSocketPath(join(dir, "link"))).toThrow(/symbolic link/);
  expect(() => requireSocketPath(dir)).toThrow(/directory/);
});

test("overwriteShorter: JSON between the write and the cut, the exact bytes in the end, in the same file", async () => {
  const path = join(dir, "conf");
  const short = JSON.stringify({ text: "x".repeat(50_000) });
  const long = JSON.stringify({ text: "x".repeat(50_000), more: "y".repeat(20_000) });
  writeFileSync(path, long, { mode: 0o640 });
  const { ino } = statSync(path);
  const file = await open(path);
  const seen: string[] = [];
  // Each step ends with a sync: what a reader sees that finds the file in this state for good.
  const sync = vi.spyOn(Object.getPrototypeOf(file), "sync").mockImplementation(async () => {
    seen.push(readFileSync(path, "utf8"));
  });
  await overwriteShorter(path, Buffer.from(short), Buffer.from(long));
  sync.mockRestore();
  await file.close();
  expect(seen).toEqual([short.padEnd(long.length), short]);
  expect([statSync(path).ino, statSync(path).mode & 0o777]).toEqual([ino, 0o640]);
});

test("readRegular never waits for what is no regular file", async () => {
  execFileSync("mkfifo", [join(dir, "fifo")]);
  for (const path of [join(dir, "fifo"), dir, "/dev/zero"]) {
    await expect(readRegular(path, 10)).rejects.toMatchObject({
      code: "NOT_A_FILE",
      message: expect.stringContaining(path),
    });
  }
  writeFileSync(join(dir, "large"), "");
  truncateSync(join(dir, "large"), 100 << 20);
  await expect(readRegular(join(dir, "large"), 1 << 20)).rejects.toMatchObject({ code: "FILE_TOO_LARGE" });
});

test("holdsBytes: exactly these, of a regular file", () => {
  const path = join(dir, "conf");
  writeFileSync(path, "these");
  expect(["these", "the", "these and more", "those", ""].map((text) => holdsBytes(path, Buffer.from(text)))).toEqual([
    true,
    false,
    false,
    false,
    false,
  ]);
  writeFileSync(path, "");
  expect(holdsBytes(path, Buffer.alloc(0))).toBe(true);
  execFileSync("mkfifo", [join(dir, "fifo")]);
  for (const name of ["fifo", "."])
    expect(() => holdsBytes(join(dir, name), Buffer.from("x"))).toThrow("no regular file");
  expect(() => holdsBytes(join(dir, "absent"), Buffer.from("x"))).toThrow("ENOENT");
});

test("atomicWrite: what is thrown instead of putting the file in its place leaves everything as it was", async () => {
  const path = join(dir, "conf");
  writeFileSync(path, "old");
  const place = () => {
    throw new Error("no");
  };
  await expect(atomicWrite(path, "new", 0o600, { place })).rejects.toThrow("no");
  expect(readFileSync(path, "utf8")).toBe("old");
  expect(readdirSync(dir)).toEqual(["conf"]);
});
