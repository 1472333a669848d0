// SPDX-License-Identifier: Apache-2.0
// `npm run bench -- cli`: how long people wait for each command on a node with many pods, and what proving a pod
// costs. Ratios are to `node -e 0`, which is what Node itself takes to start.
import { until } from "../../src/sandbox/until.ts";
import { type CliResult, executeOnNode, onNode } from "../support/cli.ts";
import { LABEL, PROGRAM, REDIRECTION, withSandbox, workload } from "../support/sandbox.ts";

const PODS = Number(process.env.BENCH_PODS ?? 200);
const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 7);

const WITH_AGENT: readonly string[] = [
  "status",
  "pods",
  "inspect p0",
  "engines",
  "config",
  "log",
  "version",
  "check",
  "check --category cni,ztunnel,agent",
  "verify p0",
];
const WITHOUT: readonly string[] = [
  "status",
  "pods",
  "inspect p0",
  "engines",
  "config",
  "version",
  "verify p0",
  "check",
];
/** Lines of `check` are read as they end. */
const FIRST_LINE = ["sh", "-c", '"$0" "$1" check | head -n 1', process.execPath, PROGRAM];

const rows: [string, number, number][] = [];

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}

/** Each beside `node -e 0`, in turns; what fails ends it. */
async function measure(what: string, run: () => Promise<CliResult>, empty: () => Promise<CliResult>): Promise<void> {
  const times: number[] = [];
  const ratios: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const base = await empty();
    const result = await run();
    if (result.stdout === "") throw new Error(`${what}: ${result.stderr}`);
    times.push(result.milliseconds);
    ratios.push(result.milliseconds / base.milliseconds);
  }
  rows.push([what, median(times), median(ratios)]);
  console.log(
    `${what.padEnd(48)} ${median(times).toFixed(0).padStart(6)} ms  ${median(ratios).toFixed(1)} x node -e 0`,
  );
}

await withSandbox({}, async (sandbox) => {
  const names = Array.from({ length: PODS }, (_, index) => `p${index}`);
  sandbox.describeMesh(
    names.map((name, index) => workload("bench", name, index)),
    [],
  );
  sandbox.api.put({ kind: "Namespace", metadata: { name: "bench" } });
  await sandbox.startAgent();
  for (const name of names) await sandbox.kubelet.run({ namespace: "bench", name, program: "sleep" });
  sandbox.startZtunnel();
  sandbox.label("bench", LABEL, "ambient");
  const annotated = () => names.every((name) => sandbox.annotation("bench", name, REDIRECTION) === "enabled");
  await until("all pods are annotated", annotated, 180_000);
  const empty = () => executeOnNode(sandbox, [process.execPath, "-e", "0"]);
  const all = async (source: string, commands: readonly string[]) => {
    console.log(`\n${PODS} pods, ${source}`);
    for (const command of commands) {
      await measure(`${command} (${source})`, () => onNode(sandbox, ...command.split(" ")), empty);
    }
  };
  const proved = async (source: string) => {
    const { stdout } = await onNode(sandbox, "verify", "--all");
    const times = [...stdout.matchAll(/ proved in ([\d.]+) ms$/gm)].map(([, ms]) => Number(ms));
    console.log(
      `verify --all, ${source}: ${times.length} pods, median ${median(times)} ms for each, best ${Math.min(...times)} ms, slowest ${Math.max(...times)} ms`,
    );
  };
  await all("agent", WITH_AGENT);
  await measure("check, its first line (agent)", () => executeOnNode(sandbox, FIRST_LINE), empty);
  await proved("agent");
  await measure("bugreport (agent)", () => onNode(sandbox, "bugreport", "-o", sandbox.node.path("r.tgz")), empty);
  for (const command of ["status", "pods", "inspect p0"]) {
    const argv = [...command.split(" "), "--from", sandbox.node.path("r.tgz")];
    await measure(`${command} --from`, () => onNode(sandbox, ...argv), empty);
  }
  await sandbox.endAgent("SIGKILL");
  await all("kernel", WITHOUT);
  await proved("kernel");
  await measure("bugreport (kernel)", () => onNode(sandbox, "bugreport", "-o", sandbox.node.path("r.tgz")), empty);
});

if (process.argv.includes("--json")) console.log(JSON.stringify(rows, null, 2));
