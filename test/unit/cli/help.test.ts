// SPDX-License-Identifier: Apache-2.0
import type { Command } from "commander";
import { expect, test } from "vitest";
import { buildProgram } from "../../../src/cli/commands.ts";
import { processEnv } from "../../../src/cli/env.ts";
import { examplesOf, subcommandsOf } from "../../../src/cli/help.ts";
import { cli } from "../../support/cli-env.ts";
import { refusalOf } from "../../support/cli-parse.ts";

function* tree(command: Command, path: readonly string[]): Generator<{ command: Command; path: readonly string[] }> {
  yield { command, path };
  for (const sub of subcommandsOf(command)) yield* tree(sub, [...path, sub.name()]);
}

const ROOT = buildProgram(processEnv(), () => undefined);
const ALL = [...tree(ROOT, [])].filter(({ path }) => path[0] !== "install-cni");

test.each(ALL)("help of $path fits a screen and has three examples that parse", async ({ command, path }) => {
  const { status, stdout, stderr } = await cli([...path, "--help"]);
  expect([status, stderr]).toEqual([0, ""]);
  const lines = stdout.trimEnd().split("\n");
  // The list of all commands is a screen and a half: two subjects in a line would be no shorter to read.
  expect(lines.length).toBeLessThanOrEqual(path.length === 0 ? 36 : 25);
  for (const line of lines) expect(line.length, line).toBeLessThanOrEqual(100);
  expect(examplesOf(command)).toHaveLength(3);
  for (const example of examplesOf(command)) {
    const [program, ...argv] = (example.split(/[#>|]/)[0] ?? "").trim().split(/\s+/);
    expect(program).toBe("ambient-cni");
    expect(refusalOf(argv), example).toBeUndefined();
  }
  await expect(stdout).toMatchFileSnapshot(`golden/help${path.map((word) => `-${word}`).join("")}.txt`);
});

test("without a command, the help is an error", async () => {
  const { status, stdout, stderr } = await cli([]);
  expect([status, stdout]).toEqual([2, ""]);
  expect(stderr).toBe((await cli(["--help"])).stdout);
});
