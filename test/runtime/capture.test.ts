// SPDX-License-Identifier: Apache-2.0
// Kubelet's path, minus kubelet: CRI -> containerd -> CNI chain -> our plugin -> agent -> ztunnel.
import { afterAll, beforeAll, expect, test } from "vitest";
import { BRIDGE } from "../../src/sandbox/network.ts";
import { ipOf } from "../../src/sandbox/pod-records.ts";
import { until } from "../../src/sandbox/sandbox.ts";
import { hasPort, Wire } from "../../src/sandbox/wire.ts";
import { RuntimeCluster } from "../support/runtime/cluster.ts";
import { type CriPod, type Outcome, POD_PORT } from "../support/runtime/cri-kubelet.ts";
import { REDIRECTION } from "../support/sandbox.ts";

const HBONE_PORT = 15008;

let cluster: RuntimeCluster;
const servers = new Map<string, CriPod>();

beforeAll(async () => {
  cluster = await RuntimeCluster.create();
  cluster.namespace("shop", "ambient");
  cluster.namespace("legacy", "none");
  await cluster.sandbox.startAgent();
  cluster.sandbox.startZtunnel();
  await cluster.sandbox.ztunnelsConnected(1);
  for (const namespace of ["shop", "legacy"]) {
    servers.set(namespace, await cluster.kubelet.run({ namespace, name: "server" }));
  }
});

afterAll(() => cluster?.stop());

/** Runs a pod whose first process begins with a connection to the namespace's server; what came of it, and the wire. */
async function firstConnection(
  namespace: string,
  family: 4 | 6,
): Promise<{ pod: CriPod; outcome: Outcome; wire: Buffer }> {
  const server = servers.get(namespace);
  if (server === undefined) throw new Error(`no server in ${namespace}`);
  const name = `client-v${family}`;
  const wire = await Wire.listen(cluster.sandbox.node, BRIDGE);
  const pod = await cluster.kubelet.run({
    namespace,
    name,
    args: ["first", ipOf(server, family), String(POD_PORT), `marker-${name}`, name],
  });
  await until("its first connection has ended", () => cluster.kubelet.output(pod).length > 0);
  return { pod, outcome: JSON.parse(cluster.kubelet.output(pod)[0] ?? ""), wire: await wire.stop() };
}

test.each([4, 6] as const)(
  "over IPv%d the first packet of a pod's first process goes through ztunnel",
  async (family) => {
    const { pod, outcome, wire } = await firstConnection("shop", family);
    expect(outcome).toMatchObject({ server: "server", clientSeen: expect.stringContaining(`${ipOf(pod, family)}:`) });
    expect(hasPort(wire, HBONE_PORT)).toBe(true);
    expect(hasPort(wire, POD_PORT)).toBe(false);
    expect(wire.includes(`marker-client-v${family}`)).toBe(false);
    await until("it is annotated", () => cluster.sandbox.annotation("shop", pod.name, REDIRECTION) === "enabled");
  },
);

test("a pod outside the mesh gets its own network, in the clear", async () => {
  const { pod, outcome, wire } = await firstConnection("legacy", 4);
  expect(outcome).toMatchObject({ server: "server", clientSeen: expect.stringContaining(`${ipOf(pod, 4)}:`) });
  expect(hasPort(wire, POD_PORT)).toBe(true);
  expect(wire.includes("marker-client-v4")).toBe(true);
  expect(cluster.sandbox.annotation("legacy", pod.name, REDIRECTION)).toBeUndefined();
});
