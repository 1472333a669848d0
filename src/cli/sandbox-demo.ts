// SPDX-License-Identifier: Apache-2.0
import { type Check, Checks } from "../sandbox/checks.ts";
import { Demo } from "../sandbox/demo.ts";
import { assertPrograms } from "../sandbox/programs.ts";
import { CHARTS, type DemoOptions } from "./commands/sandbox.ts";
import { EXIT } from "./exit.ts";
import { inSandboxes, linger, paint, showCheck } from "./sandbox-session.ts";

interface DemoRun {
  readonly chart: string;
  readonly ztunnel: string;
  readonly passed: number;
  readonly failed: number;
  readonly checks: readonly Check[];
  /** Why the story could not be told to its end. */
  readonly error: string | undefined;
}

/** Runs the story once. */
async function tell(chart: string, { json, keep, engine, ztunnel }: DemoOptions): Promise<DemoRun> {
  const say = (text: string) => {
    if (!json) process.stdout.write(text);
  };
  const checks = new Checks((check) => {
    if (!json) showCheck(check);
  });
  say(`\n${paint("bold", `Sandbox: one node, chart ${chart}, ${ztunnel ?? "the stand-in ztunnel"}`)}\n`);
  const agentEnv = engine === undefined ? {} : { AMBIENT_CNI_ENGINE: engine };
  const error = await inSandboxes({ nodes: 1, say, chart, ztunnel, agentEnv }, async (sandboxes) => {
    const [sandbox] = sandboxes;
    if (sandbox === undefined) return;
    await new Demo(sandbox, checks, (title) => say(`\n${paint("bold", title)}\n`)).run(keep);
    if (keep) await linger(sandboxes, say);
  });
  return {
    chart,
    ztunnel: ztunnel ?? "stand-in",
    passed: checks.all.length - checks.failed,
    failed: checks.failed,
    checks: checks.all,
    error,
  };
}

/**
 * Tells the story with each chart that is asked for; resolves with the exit status.
 * @throws Error where there can be no sandbox
 */
export async function runDemo(given: DemoOptions): Promise<number> {
  assertPrograms(process.env.PATH ?? "");
  const charts = given.chart === undefined ? (given.keep ? CHARTS.slice(0, 1) : CHARTS) : [given.chart];
  const runs: DemoRun[] = [];
  for (const chart of charts) runs.push(await tell(chart, given));
  const passed = runs.reduce((sum, run) => sum + run.passed, 0);
  const failed = runs.reduce((sum, run) => sum + run.failed + (run.error === undefined ? 0 : 1), 0);
  if (given.json) process.stdout.write(`${JSON.stringify({ schemaVersion: 1, passed, failed, runs }, null, 2)}\n`);
  else process.stdout.write(`\n${passed} checks passed, ${failed} failed\n`);
  return failed === 0 ? EXIT.ok : EXIT.problem;
}
