// SPDX-License-Identifier: Apache-2.0
// Our own chart's memory limit, in force in the container's cgroup, while pods come and go.
import { expect, test } from "vitest";
import { until } from "../../src/sandbox/until.ts";
import { ownChart } from "../support/runtime/charts.ts";
import { answered, type CriPod } from "../support/runtime/cri-kubelet.ts";
import { useCluster } from "../support/runtime/use-cluster.ts";
import { REDIRECTION } from "../support/sandbox.ts";

const PODS = 60;
const AT_ONCE = 10;
const LIMIT = 128 * 2 ** 20;

const cluster = useCluster(() => ({ chart: ownChart() }));

test(`with ${PODS} pods of the mesh the agent stays within its 128 MiB: one process, never short of memory`, async () => {
  const { kubelet, sandbox, agent } = cluster();
  const memory = (file: string) => agent.cgroupFile("memory", file);
  expect(Number(memory("memory.limit_in_bytes"))).toBe(LIMIT);
  const began = await agent.proc("stat");
  cluster().namespace("shop", "ambient");

  const pods: CriPod[] = [];
  while (pods.length < PODS) {
    const names = Array.from({ length: AT_ONCE }, (_, index) => `p${pods.length + index}`);
    pods.push(...(await Promise.all(names.map((name) => kubelet.run({ namespace: "shop", name })))));
  }
  for (const { name } of pods) {
    await until(`${name} is annotated`, () => sandbox.annotation("shop", name, REDIRECTION) === "enabled");
  }
  const [first, last] = [pods[0], pods.at(-1)];
  if (first === undefined || last === undefined) throw new Error("no pods");
  expect(answered(await kubelet.connect(first, last, "marker"))).toBe(true);

  expect(await agent.running()).toBe(true);
  // Start time and pid: the very process that was there before.
  expect(processOf(await agent.proc("stat"))).toBe(processOf(began));
  expect(memory("memory.oom_control")).toMatch(/^oom_kill 0$/m);
  // Anonymous memory, what can't be given back: the limit is not merely held by dropping pages of files.
  const anonymous = Number(/^total_rss (\d+)$/m.exec(memory("memory.stat"))?.[1]);
  expect(anonymous).toBeGreaterThan(0);
  expect(anonymous).toBeLessThan(LIMIT * 0.8);
  await Promise.all(pods.map((pod) => kubelet.remove(pod)));
});

/** pid and start time of a line of /proc/PID/stat. */
function processOf(stat: string): string {
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return `${stat.split(" ", 1)[0]} ${fields[19]}`;
}
