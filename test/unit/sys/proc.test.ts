// SPDX-License-Identifier: Apache-2.0
import { statSync } from "node:fs";
import { expect, test } from "vitest";
import { Proc, parseStat } from "../../../src/sys/proc.ts";

const fields = (flags: number, start: string) => `S 1 1 1 0 -1 ${flags} 0 0 0 0 1 2 3 4 20 0 1 0 ${start} 99 7 8`;

test("process status: fields count from the last parenthesis", () => {
  expect(parseStat(`12 (bash) ${fields(4194304, "4711")}\n`)).toEqual({
    comm: "bash",
    state: "S",
    startTime: 4711n,
    kernelThread: false,
  });
  expect(parseStat(`12 (a) R 1 (b) ${fields(0x208040, "5")}`)).toEqual({
    comm: "a) R 1 (b",
    state: "S",
    startTime: 5n,
    kernelThread: true,
  });
});

test.each(["", "12", "12 (bash", "12 (bash) S 1", `12 (x) ${fields(1, "no")}`])("malformed: %j", (text) => {
  expect(() => parseStat(text)).toThrow("malformed process status");
});

test("our own process in the real proc", () => {
  const proc = new Proc("/proc");
  const { ino, dev } = statSync("/proc/self/ns/net", { bigint: true });
  expect(proc.pids()).toContain(String(process.pid));
  expect(proc.netnsId(String(process.pid))).toBe(`${dev}:${ino}`);
  expect(proc.stat(String(process.pid)).kernelThread).toBe(false);
  expect(proc.cgroup(String(process.pid))).toMatch(/^\d+:.*:\//m);
  expect(() => proc.cgroup("999999999")).toThrow("ENOENT");
});
