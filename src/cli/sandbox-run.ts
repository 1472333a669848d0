// SPDX-License-Identifier: Apache-2.0
import { basename } from "node:path";
import { Checks } from "../sandbox/checks.ts";
import { assertPrograms } from "../sandbox/programs.ts";
import { readScenario, ScenarioError } from "../sandbox/scenario/read.ts";
import { runScenario } from "../sandbox/scenario/run.ts";
import type { Scenario } from "../sandbox/scenario/schema.ts";
import type { ScenarioOptions } from "./commands/sandbox.ts";
import { EXIT } from "./exit.ts";
import { visible } from "./render/text.ts";
import { inSandboxes, linger, PROGRAM, paint, showCheck } from "./sandbox-session.ts";

/**
 * Plays the scenarios of the files, each in a sandbox of its own; resolves with the exit status. All files are read
 * before the first sandbox is made. @throws Error where there can be no sandbox
 */
export async function runScenarios(files: readonly string[], options: ScenarioOptions): Promise<number> {
  const scenarios = readAll(files);
  if (scenarios === undefined) return EXIT.usage;
  if (options.dryRun) {
    for (const { file, scenario } of scenarios) process.stdout.write(`${file}: ${scenario.steps.length} steps\n`);
    return EXIT.ok;
  }
  assertPrograms(process.env.PATH ?? "");
  const say = (text: string) => {
    if (!options.json) process.stdout.write(text);
  };
  const runs: object[] = [];
  let failed = 0;
  let passed = 0;
  for (const { file, scenario } of scenarios) {
    const checks = new Checks((check) => {
      if (!options.json) showCheck(check);
    });
    const engine = options.engine ?? scenario.engine;
    const { nodes = 1, environment, title } = scenario;
    say(`\n${paint("bold", `${basename(file)}: ${title}`)}\n`);
    const agentEnv = { ...environment, ...(engine === undefined ? {} : { AMBIENT_CNI_ENGINE: engine }) };
    const chart = options.chart ?? scenario.chart ?? "newest";
    const { ztunnel } = options;
    const error = await inSandboxes({ nodes, say, chart, ztunnel, agentEnv }, async (sandboxes) => {
      await runScenario({ scenario, sandboxes, program: PROGRAM, checks });
      if (options.keep) await linger(sandboxes, say);
    });
    failed += checks.failed + (error !== undefined && checks.failed === 0 ? 1 : 0);
    passed += checks.all.length - checks.failed;
    runs.push({ file, title, chart, ztunnel: ztunnel ?? "stand-in", checks: checks.all, error });
  }
  if (options.json) process.stdout.write(`${JSON.stringify({ schemaVersion: 1, passed, failed, runs }, null, 2)}\n`);
  else say(`\n${passed} steps passed, ${failed} failed\n`);
  return failed === 0 ? EXIT.ok : EXIT.problem;
}

/** undefined, and all that is wrong is told, when one of them is no scenario. */
function readAll(files: readonly string[]): { readonly file: string; readonly scenario: Scenario }[] | undefined {
  const problems: string[] = [];
  const scenarios = files.flatMap((file) => {
    try {
      return [{ file, scenario: readScenario(file) }];
    } catch (error) {
      if (!(error instanceof ScenarioError)) throw error;
      problems.push(...error.problems);
      return [];
    }
  });
  if (problems.length === 0) return scenarios;
  process.stderr.write(problems.map((problem) => `ambient-cni: ${visible(problem)}\n`).join(""));
  return undefined;
}
