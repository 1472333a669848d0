// SPDX-License-Identifier: Apache-2.0
// `npm run bench -- enroll`: what one more pod costs the agent, engine by engine, without ztunnel's ack.
import { parseArgs } from "node:util";
import { messageOf } from "../../src/core/errors.ts";
import type { EngineName } from "../../src/core/ports/dataplane.ts";
import { native } from "../../src/native/load.ts";
import { forkCount } from "../../src/sys/exec.ts";
import { median, quantile } from "./datapath/summary.ts";
import { startEngine } from "./datapath/variants.ts";
import { ScratchPods } from "./enroll/pods.ts";

const ENGINES: readonly EngineName[] = ["ebpf", "nftables", "iptables"];
/** Enrolled before the clock counts: compiled code, kernel modules and caches. */
const WARM_UP_PODS = 10;

const { values: options } = parseArgs({
  options: {
    engines: { type: "string", default: ENGINES.join(",") },
    pods: { type: "string", default: "200" },
    json: { type: "boolean", default: false },
  },
});

interface Cost {
  readonly engine: EngineName;
  readonly pods: number;
  /** Milliseconds of prepare and capture of one pod, verification included. */
  readonly p50: number;
  readonly p90: number;
  readonly max: number;
  /** Of which `prepare`: routes and sysctls. */
  readonly prepareP50: number;
  /** All pods one after the other, in seconds. */
  readonly total: number;
  /** Programs started, per pod, as the agent's only way to start one counts them. */
  readonly forks: number;
  /** Fds held more than before, when all pods are captured. */
  readonly fds: number;
  /** Milliseconds of the release of one pod. */
  readonly releaseP50: number;
}

async function measureEngine(engine: EngineName, count: number): Promise<Cost> {
  using pods = new ScratchPods(count + WARM_UP_PODS);
  const dataplane = await startEngine(engine);
  try {
    const prepares: number[] = [];
    const enrols: number[] = [];
    const releases: number[] = [];
    let forks = forkCount();
    let fds = native().openFds();
    for (const [index, { netns, spec }] of pods.pods.entries()) {
      if (index === WARM_UP_PODS) {
        forks = forkCount();
        fds = native().openFds();
      }
      const began = performance.now();
      await dataplane.prepare(netns, spec);
      const prepared = performance.now();
      await dataplane.capture(netns, spec);
      if (index < WARM_UP_PODS) continue;
      prepares.push(prepared - began);
      enrols.push(performance.now() - began);
    }
    const forked = forkCount() - forks;
    const held = native().openFds() - fds;
    for (const { netns, spec } of pods.pods) {
      const { mode, differences } = dataplane.observe(netns, spec);
      if (mode !== "captured") throw new Error(`${spec.pod} is ${mode}: ${differences.join("; ")}`);
      const began = performance.now();
      await dataplane.release(netns);
      releases.push(performance.now() - began);
    }
    return {
      ...{ engine, pods: count, p50: median(enrols), p90: quantile(enrols, 0.9), max: Math.max(...enrols) },
      ...{ prepareP50: median(prepares), total: enrols.reduce((sum, ms) => sum + ms, 0) / 1000 },
      ...{ forks: forked / count, fds: held, releaseP50: median(releases) },
    };
  } finally {
    dataplane.close();
  }
}

function asLine(cost: Cost): string {
  const ms = (value: number) => `${value.toFixed(2)} ms`.padStart(11);
  return [
    cost.engine.padEnd(10),
    ...[cost.p50, cost.p90, cost.max, cost.prepareP50, cost.releaseP50].map(ms),
    `${cost.total.toFixed(2)} s`.padStart(9),
    cost.forks.toFixed(2).padStart(11),
    String(cost.fds).padStart(6),
  ].join("");
}

const isEngine = (name: string): name is EngineName => ENGINES.some((known) => known === name);
const costs: Cost[] = [];
const absent: { engine: string; reason: string }[] = [];
for (const name of options.engines.split(",")) {
  try {
    if (!isEngine(name)) throw new Error(`no such engine; there are ${ENGINES.join(", ")}`);
    costs.push(await measureEngine(name, Number(options.pods)));
  } catch (error) {
    absent.push({ engine: name, reason: messageOf(error) });
  }
}

const goal = { engine: "ebpf", p50: 1, forks: 0, total: 1 } as const;
const ours = costs.find(({ engine }) => engine === goal.engine);
const met = (fact: boolean | undefined) => (fact === undefined ? "not measured" : fact ? "met" : "not met");
const goals = [
  { text: "ebpf: p50 of a pod at most 1 ms", verdict: met(ours && ours.p50 <= goal.p50) },
  { text: "ebpf: no fork", verdict: met(ours && ours.forks === goal.forks) },
  { text: `ebpf: ${options.pods} pods in under 1 s`, verdict: met(ours && ours.total < goal.total) },
];

if (options.json) {
  console.log(JSON.stringify({ costs, absent, goals }, null, 2));
} else {
  console.log(`${options.pods} pods one after the other; prepare and capture with verification, no ztunnel\n`);
  console.log("engine            p50        p90        max    prepare    release    total  forks/pod   fds");
  for (const cost of costs) console.log(asLine(cost));
  for (const { engine, reason } of absent) console.log(`${engine} is absent: ${reason}`);
  console.log("");
  for (const { text, verdict } of goals) console.log(`${text}: ${verdict}`);
}
