// SPDX-License-Identifier: Apache-2.0
import { execFileSync, spawnSync } from "node:child_process";
import { symlinkSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { goMemory } from "../../../src/core/config/kinds.ts";
import { ScratchDir } from "../../support/scratch-dir.ts";

const SOURCE = resolve(import.meta.dirname, "../../../install/image/launcher.c");
const MIB = 2 ** 20;

let dir: ScratchDir;

beforeAll(() => {
  dir = new ScratchDir();
  // In Node's place: says how it was started.
  writeFileSync(
    dir.file("node"),
    `#!/bin/sh\nprintf '%s\\n' "$@"\necho "env $MALLOC_ARENA_MAX $MALLOC_MMAP_THRESHOLD_"\necho "oom $(cat /proc/self/oom_score_adj)"\nexit 7\n`,
    { mode: 0o755 },
  );
  const flags = ["-std=c17", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", '-DPROGRAM="/program.mjs"'];
  const compile = (node: string, out: string) =>
    execFileSync("gcc", [...flags, `-DNODE="${node}"`, SOURCE, "-o", dir.file(out)]);
  compile(dir.file("node"), "install-cni");
  compile(dir.file("no-node"), "lost");
  symlinkSync("install-cni", dir.file("ambient-cni"));
});
afterAll(() => dir[Symbol.dispose]());

function launch(name: string, args: readonly string[] = [], env: Record<string, string> = {}) {
  const { stdout, stderr, status } = spawnSync(dir.file(name), args, {
    encoding: "utf8",
    env: { PATH: process.env.PATH ?? "", ...env },
  });
  return { lines: stdout.trimEnd().split("\n"), stderr, status };
}

const heapOf = (lines: readonly string[]) =>
  lines.find((line) => line.startsWith("--max-old-space-size="))?.split("=")[1];

test("install-cni is the agent, with its arguments, limits of its heap, and Node's exit status", () => {
  const { lines, status } = launch("install-cni", ["--log_as_json", "", "a b"]);
  expect(lines).toEqual([
    "--disable-warning=DEP0040",
    "--max-semi-space-size=2",
    "--max-old-space-size=96",
    "/program.mjs",
    "install-cni",
    "--log_as_json",
    "",
    "a b",
    "env 1 131072",
    expect.stringMatching(/^oom /),
  ]);
  expect(status).toBe(7);
});

test("ambient-cni is a command: no limits, but the first to go when memory is short", () => {
  const { lines } = launch("ambient-cni", ["status"], { GOMEMLIMIT: "64MiB" });
  expect(lines).toEqual(["--disable-warning=DEP0040", "/program.mjs", "status", "env 1 131072", "oom 1000"]);
});

test("ambient-cni install-cni is the agent too", () => {
  const { lines } = launch("ambient-cni", ["install-cni", "--x"], { GOMEMLIMIT: "64MiB" });
  expect(lines.slice(1, 6)).toEqual([
    "--max-semi-space-size=2",
    "--max-old-space-size=32",
    "/program.mjs",
    "install-cni",
    "--x",
  ]);
  expect(lines.at(-1)).not.toBe("oom 1000");
});

test.each([
  "134217728",
  "128MiB",
  "100000KiB",
  "104857600B",
  "1GiB",
  "2TiB",
  "999999999999999TiB",
  "8000000000",
  "off",
  "",
  "0",
  "1",
  "2MiB",
  "100M",
  "-1",
  "1.5GiB",
  " 128MiB",
  "128 MiB",
  "128MiBx",
  "99999999999999999999999",
])("GOMEMLIMIT=%j: half of what the configuration reads, 96 MiB at most", (text) => {
  let limit: number | undefined;
  try {
    limit = goMemory.parse(text);
  } catch {
    // The agent refuses it by name, as soon as it runs.
  }
  const half = Math.floor((limit ?? 0) / 2 / MIB);
  const { lines } = launch("install-cni", [], { GOMEMLIMIT: text });
  expect(heapOf(lines)).toBe(String(half > 0 ? Math.min(half, 96) : 96));
});

test("what the user sets for malloc stays", () => {
  expect(launch("install-cni", [], { MALLOC_ARENA_MAX: "4" }).lines.at(-2)).toBe("env 4 131072");
});

test("without Node it says so", () => {
  const { stderr, status } = launch("lost");
  expect(stderr).toBe(`lost: can't start ${dir.file("no-node")}: No such file or directory\n`);
  expect(status).toBe(127);
});
