// SPDX-License-Identifier: Apache-2.0
// Power off, power on: the plugin and its place in the CNI chain are on disk, everything else begins anew.
import { existsSync } from "node:fs";
import { expect, test } from "vitest";
import { BRIDGE } from "../../src/sandbox/network.ts";
import { ipOf } from "../../src/sandbox/pod-records.ts";
import { until } from "../../src/sandbox/until.ts";
import { hasPort, Wire } from "../../src/sandbox/wire.ts";
import { stockChart } from "../support/runtime/charts.ts";
import type { CriError } from "../support/runtime/cri.ts";
import { POD_PORT } from "../support/runtime/cri-kubelet.ts";
import { useCluster } from "../support/runtime/use-cluster.ts";
import { REDIRECTION } from "../support/sandbox.ts";

const IN_TIME_MS = 60_000;

const cluster = useCluster(() => ({ chart: stockChart() }));

test("after a reboot pods of the mesh wait for the agent, whose own pod and system pods start without it; all come up by themselves", async () => {
  const { kubelet, containerd, sandbox } = cluster();
  cluster().namespace("shop", "ambient");
  cluster().namespace("legacy", "none");
  const server = { namespace: "shop", name: "server" };
  const other = { namespace: "legacy", name: "other" };
  await kubelet.run(server);
  await kubelet.run(other);

  await cluster().reboot();
  expect(existsSync(`/proc/${sandbox.node.pid}/root/run/istio-cni/pluginevent.sock`)).toBe(false);
  expect(sandbox.installed().plugin).toBe(true);
  expect(sandbox.installed().conf).toContain('"istio-cni"');
  // What kubelet does first: DEL of sandboxes whose netns are gone.
  const { items } = await containerd.cri.call("listPodSandbox", {});
  expect(items).toHaveLength(3);
  for (const { id: podSandboxId } of items) {
    await containerd.cri.call("stopPodSandbox", { podSandboxId });
    await containerd.cri.call("removePodSandbox", { podSandboxId });
  }
  expect(
    cluster()
      .podTraces()
      .filter((trace) => !trace.includes("kubepods")),
  ).toEqual([]);

  const refusals = new Map<string, CriError[]>([
    ["server", []],
    ["other", []],
  ]);
  const waiting = [server, other].map((request) =>
    kubelet.startInTime(request, IN_TIME_MS, (error) => refusals.get(request.name)?.push(error)),
  );
  const system = await kubelet.run({ namespace: "kube-system", name: "coredns" });
  expect(ipOf(system, 4)).toMatch(/^10\.66\.0\./);
  await until("both were refused", () => [...refusals.values()].every((errors) => errors.length > 1));
  for (const { details } of [...refusals.values()].flat()) expect(details).toContain("istio-cni agent does not answer");

  await cluster().startAgent();
  // Outside the mesh: as soon as there is an agent to say so. In the mesh: with ztunnel.
  const [serverStarts, otherStarts] = waiting;
  await otherStarts;
  await cluster().startZtunnel();
  const started = await serverStarts;
  if (started === undefined) throw new Error("no server");
  const wire = await Wire.listen(sandbox.node, BRIDGE);
  const client = await kubelet.run({
    namespace: "shop",
    name: "client",
    args: ["first", ipOf(started, 4), String(POD_PORT), "marker-client", "client"],
  });
  await until("its first connection has ended", () => kubelet.output(client).length > 0);
  const bytes = await wire.stop();
  expect(JSON.parse(kubelet.output(client)[0] ?? "")).toMatchObject({ server: "server" });
  expect(hasPort(bytes, POD_PORT)).toBe(false);
  expect(bytes.includes("marker-client")).toBe(false);
  for (const name of ["server", "client"]) {
    await until(`${name} is annotated`, () => sandbox.annotation("shop", name, REDIRECTION) === "enabled");
  }
});
