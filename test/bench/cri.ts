// SPDX-License-Identifier: Apache-2.0
// `npm run bench -- cri`: what our plugin adds to RunPodSandbox of containerd, in one run. Variants take turns.
import { cpus, loadavg } from "node:os";
import { until } from "../../src/sandbox/until.ts";
import { ownChart } from "../support/runtime/charts.ts";
import { RuntimeCluster } from "../support/runtime/cluster.ts";
import { UNCHAINED } from "../support/runtime/containerd.ts";
import { ScriptedZtunnel } from "../support/runtime/scripted-ztunnel.ts";

const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 60);
const WARM_UP = 3;

const VARIANTS = {
  "no plugin of ours": { namespace: "legacy", runtimeHandler: UNCHAINED.handler },
  "plugin, pod outside the mesh": { namespace: "legacy", runtimeHandler: "" },
  "plugin, pod captured": { namespace: "shop", runtimeHandler: "" },
} as const;
type Variant = keyof typeof VARIANTS;
const NAMES = Object.keys(VARIANTS) as Variant[];
const BASE: Variant = "no plugin of ours";

const quantile = (values: readonly number[], q: number): number =>
  [...values].sort((a, b) => a - b)[Math.floor((values.length - 1) * q)] ?? Number.NaN;
const ms = (value: number) => value.toFixed(1);

interface Start {
  /** RunPodSandbox, in ms. */
  readonly took: number;
  /** The agent started a program meanwhile. */
  readonly forked: boolean;
}

/** One sandbox, made and removed. */
async function measure(cluster: RuntimeCluster, variant: Variant, name: string): Promise<Start> {
  const { kubelet, sandbox } = cluster;
  const { cri } = cluster.containerd;
  const { namespace, runtimeHandler } = VARIANTS[variant];
  kubelet.records.create({ namespace, name });
  const uid = kubelet.records.uidOf(namespace, name);
  const config = kubelet.sandboxConfig(namespace, name, uid);
  const faults = await childFaults(cluster);
  const began = performance.now();
  const { podSandboxId } = await cri.call("runPodSandbox", { config, runtimeHandler });
  const took = performance.now() - began;
  const forked = (await childFaults(cluster)) !== faults;
  await cri.call("stopPodSandbox", { podSandboxId });
  await cri.call("removePodSandbox", { podSandboxId });
  await sandbox.node.cgroups.removePod(uid);
  sandbox.api.delete("Pod", namespace, name);
  return { took, forked };
}

/** Minor faults of children that the agent has waited for: any program that it starts adds some (proc(5)). */
async function childFaults(cluster: RuntimeCluster): Promise<number> {
  const stat = await cluster.agent.proc("stat");
  return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[11 - 3]);
}

const cluster = await RuntimeCluster.create({ chart: ownChart(), unchained: true });
try {
  cluster.namespace("shop", "ambient");
  cluster.namespace("legacy", "none");
  await cluster.startAgent();
  using ztunnel = new ScriptedZtunnel(cluster.sandbox.node, () => ({}));
  await until("it has its snapshot", () => ztunnel.seen.some(({ kind }) => kind === "snapshot_sent"));
  const engine = await cluster.agent.view.engine();

  const times = new Map<Variant, number[]>(NAMES.map((name) => [name, []]));
  let forks = 0;
  for (let round = -WARM_UP; round < ROUNDS; round++) {
    // In changing order, so that none always follows the same one.
    for (let turn = 0; turn < NAMES.length; turn++) {
      const variant = NAMES[(round + WARM_UP + turn) % NAMES.length] ?? BASE;
      const { took, forked } = await measure(cluster, variant, `r${round + WARM_UP}-${turn}`);
      if (round < 0) continue;
      times.get(variant)?.push(took);
      if (forked) forks += 1;
    }
  }
  const added = ztunnel.seen.filter(({ kind }) => kind === "add").length;
  if (added < ROUNDS) throw new Error(`only ${added} pods were captured`);

  const base = times.get(BASE) ?? [];
  console.log(`RunPodSandbox through CRI, ${ROUNDS} of each by turns; engine ${engine}, ztunnel acks at once\n`);
  console.log("| ms | p10 | p50 | p90 | added to p10 | added, p50 of the pairs (p25 to p75) |");
  console.log("| --- | ---: | ---: | ---: | ---: | ---: |");
  for (const [variant, values] of times) {
    const pairs = values.map((value, round) => value - (base[round] ?? 0));
    const [low, middle, high] = [0.25, 0.5, 0.75].map((q) => ms(quantile(pairs, q)));
    const added = [ms(quantile(values, 0.1) - quantile(base, 0.1)), `${middle} (${low} to ${high})`];
    const columns = [...[0.1, 0.5, 0.9].map((q) => ms(quantile(values, q))), ...(variant === BASE ? ["", ""] : added)];
    console.log(`| ${variant} | ${columns.join(" | ")} |`);
  }
  console.log(
    `\nload of the machine: ${loadavg()[0]?.toFixed(1)} on ${cpus().length} CPUs; where it is above that number,`,
  );
  console.log("only p10 means much: the others are mostly waiting for a CPU");
  console.log(`\nstarts during which the agent ran a program: ${forks} of ${ROUNDS * NAMES.length}`);
  const rss = /^VmRSS:\s+(\d+) kB/m.exec(await cluster.agent.proc("status"))?.[1];
  console.log(`the agent's resident memory afterwards: ${(Number(rss) / 1024).toFixed(0)} MiB`);
} finally {
  await cluster.stop();
}
