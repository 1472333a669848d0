// SPDX-License-Identifier: Apache-2.0
// `npm run bench -- cri`: what our plugin adds to RunPodSandbox of containerd, in one run. Variants take turns.
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

/** One sandbox, made and removed; how long RunPodSandbox took, in ms. */
async function measure(cluster: RuntimeCluster, variant: Variant, name: string): Promise<number> {
  const { kubelet, sandbox } = cluster;
  const { cri } = cluster.containerd;
  const { namespace, runtimeHandler } = VARIANTS[variant];
  kubelet.records.create({ namespace, name });
  const uid = kubelet.records.uidOf(namespace, name);
  const config = kubelet.sandboxConfig(namespace, name, uid);
  const began = performance.now();
  const { podSandboxId } = await cri.call("runPodSandbox", { config, runtimeHandler });
  const took = performance.now() - began;
  await cri.call("stopPodSandbox", { podSandboxId });
  await cri.call("removePodSandbox", { podSandboxId });
  await sandbox.node.cgroups.removePod(uid);
  sandbox.api.delete("Pod", namespace, name);
  return took;
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
  let faults = 0;
  for (let round = -WARM_UP; round < ROUNDS; round++) {
    if (round === 0) faults = await childFaults(cluster);
    // In changing order, so that none always follows the same one.
    for (let turn = 0; turn < NAMES.length; turn++) {
      const variant = NAMES[(round + WARM_UP + turn) % NAMES.length] ?? BASE;
      const took = await measure(cluster, variant, `r${round + WARM_UP}-${turn}`);
      if (round >= 0) times.get(variant)?.push(took);
    }
  }
  const started = (await childFaults(cluster)) - faults;
  const added = ztunnel.seen.filter(({ kind }) => kind === "add").length;
  if (added < ROUNDS) throw new Error(`only ${added} pods were captured`);

  const base = times.get(BASE) ?? [];
  console.log(`RunPodSandbox through CRI, ${ROUNDS} of each by turns; engine ${engine}, ztunnel acks at once\n`);
  console.log("| | p50 ms | p90 ms | added, p50 of the pairs, ms |");
  console.log("| --- | ---: | ---: | ---: |");
  for (const [variant, values] of times) {
    const more = quantile(
      values.map((value, round) => value - (base[round] ?? 0)),
      0.5,
    );
    console.log(
      `| ${variant} | ${ms(quantile(values, 0.5))} | ${ms(quantile(values, 0.9))} | ${variant === BASE ? "" : ms(more)} |`,
    );
  }
  console.log(`\nprograms started by the agent meanwhile: ${started === 0 ? "none" : "some"}`);
  const rss = /^VmRSS:\s+(\d+) kB/m.exec(await cluster.agent.proc("status"))?.[1];
  console.log(`the agent's resident memory afterwards: ${(Number(rss) / 1024).toFixed(0)} MiB`);
} finally {
  await cluster.stop();
}
