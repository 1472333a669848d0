// SPDX-License-Identifier: Apache-2.0
import { fileURLToPath } from "node:url";
import { styleText } from "node:util";
import { type Check, Checks } from "../sandbox/checks.ts";
import { Demo } from "../sandbox/demo.ts";
import { PodFollower } from "../sandbox/follower.ts";
import { assertPrograms } from "../sandbox/programs.ts";
import { Sandbox } from "../sandbox/sandbox.ts";
import { CHARTS, type DemoOptions } from "./commands/sandbox.ts";
import { EXIT } from "./exit.ts";

interface DemoRun {
  readonly chart: string;
  readonly ztunnel: string;
  readonly passed: number;
  readonly failed: number;
  readonly checks: readonly Check[];
  /** Why the story could not be told to its end. */
  readonly error: string | undefined;
}

const paint = (style: "green" | "red" | "bold" | "dim", text: string): string =>
  process.stdout.isTTY && process.env.NO_COLOR === undefined ? styleText(style, text) : text;

function showCheck({ passed, title, evidence, milliseconds }: Check): void {
  const sign = passed ? paint("green", "√") : paint("red", "×");
  process.stdout.write(`  ${sign} ${title} ${paint("dim", `(${milliseconds} ms)`)}\n      ${evidence}\n`);
}

/** Runs the story once and takes everything away again, also on SIGINT and SIGTERM. */
async function tell(chart: string, options: DemoOptions): Promise<DemoRun> {
  const say = (text: string) => {
    if (!options.json) process.stdout.write(text);
  };
  const checks = new Checks((check) => {
    if (!options.json) showCheck(check);
  });
  let sandbox: Sandbox | undefined;
  let interrupted: NodeJS.Signals | undefined;
  const interrupt = (signal: NodeJS.Signals) => {
    if (interrupted !== undefined) return;
    interrupted = signal;
    process.stderr.write(`\n${signal}: cleaning up\n`);
    void (sandbox?.stop() ?? Promise.resolve()).finally(() => process.exit(signal === "SIGINT" ? 130 : 143));
  };
  process.on("SIGINT", interrupt);
  process.on("SIGTERM", interrupt);
  let failure: string | undefined;
  try {
    const with_ = options.ztunnel === undefined ? "the stand-in ztunnel" : options.ztunnel;
    say(`\n${paint("bold", `Sandbox: one node, chart ${chart}, ${with_}`)}\n`);
    // Beside this file in dist/, whichever part of the bundle this is.
    const bundle = fileURLToPath(new URL("agent.mjs", import.meta.url));
    const agentEnv = options.engine === undefined ? {} : { AMBIENT_CNI_ENGINE: options.engine };
    const running = await Sandbox.create({ program: bundle, chart, ztunnel: options.ztunnel, agentEnv }, (made) => {
      sandbox = made;
    });
    await new Demo(running, checks, (title) => say(`\n${paint("bold", title)}\n`)).run(options.keep);
    if (options.keep) await linger(running, say);
  } catch (error) {
    if (interrupted !== undefined) await new Promise(() => undefined);
    failure = error instanceof Error ? error.message : String(error);
    say(`\n${paint("red", `The story ended early: ${failure}`)}\n`);
    if (sandbox !== undefined && !options.json) {
      say(`agent's last lines:\n${sandbox.agentLog().split("\n").slice(-15).join("\n")}\n`);
    }
  } finally {
    if (interrupted === undefined) await sandbox?.stop();
    process.off("SIGINT", interrupt);
    process.off("SIGTERM", interrupt);
  }
  return {
    chart,
    ztunnel: options.ztunnel ?? "stand-in",
    passed: checks.all.length - checks.failed,
    failed: checks.failed,
    checks: checks.all,
    error: failure,
  };
}

/** Leaves the sandbox up until Ctrl-C, and says how to play with it. */
async function linger(sandbox: Sandbox, say: (text: string) => void): Promise<void> {
  new PodFollower(sandbox.api, sandbox.kubelet, say);
  say(`\nThe sandbox stays until Ctrl-C. In another shell:\n`);
  say(`  export KUBECONFIG=${sandbox.kubeconfigPath}\n`);
  say(`  kubectl get pods -A; kubectl label namespace demo istio.io/dataplane-mode=ambient\n`);
  say(`  kubectl run web --image=any; kubectl delete pod web\n`);
  say(`  tail -f ${sandbox.node.path("agent.log")}\n`);
  say(`  nsenter -t ${sandbox.node.pid} -m -n -p bash      # a shell on the node\n`);
  await new Promise(() => undefined);
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
