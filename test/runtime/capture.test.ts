// SPDX-License-Identifier: Apache-2.0
// Kubelet's path, minus kubelet: CRI -> containerd -> CNI chain -> our plugin -> agent -> ztunnel, with the agent's
// image under istio-cni's own chart.
import { beforeAll, expect, test } from "vitest";
import { BRIDGE } from "../../src/sandbox/network.ts";
import { ipOf } from "../../src/sandbox/pod-records.ts";
import { until } from "../../src/sandbox/until.ts";
import { hasPort, Wire } from "../../src/sandbox/wire.ts";
import { stockChart } from "../support/runtime/charts.ts";
import { answered, type CriPod, type Outcome, POD_PORT } from "../support/runtime/cri-kubelet.ts";
import { useCluster } from "../support/runtime/use-cluster.ts";
import { REDIRECTION } from "../support/sandbox.ts";

const HBONE_PORT = 15008;
const CROWD = 50;

const cluster = useCluster(() => ({ chart: stockChart() }));
const servers = new Map<string, CriPod>();

function serverIn(namespace: string): CriPod {
  const server = servers.get(namespace);
  if (server === undefined) throw new Error(`no server in ${namespace}`);
  return server;
}

beforeAll(async () => {
  cluster().namespace("shop", "ambient");
  cluster().namespace("legacy", "none");
  for (const namespace of ["shop", "legacy"]) {
    servers.set(namespace, await cluster().kubelet.run({ namespace, name: "server" }));
  }
});

/** A pod whose first process begins with a connection to the namespace's server. */
const caller = (namespace: string, name: string, family: 4 | 6 = 4) => ({
  namespace,
  name,
  args: ["first", ipOf(serverIn(namespace), family), String(POD_PORT), `marker-${name}`, name],
});

/** What came of a caller's first connection. */
async function firstOutcome(pod: CriPod): Promise<Outcome> {
  await until("its first connection has ended", () => cluster().kubelet.output(pod).length > 0);
  return JSON.parse(cluster().kubelet.output(pod)[0] ?? "") as Outcome;
}

test("the agent has the chart's capabilities and no more, and found the best engine", async () => {
  const { agent } = cluster();
  const status = await agent.proc("status");
  // DAC_OVERRIDE 1, NET_ADMIN 12, NET_RAW 13, SYS_PTRACE 19, SYS_ADMIN 21.
  for (const set of ["CapEff", "CapPrm", "CapBnd"])
    expect(status).toMatch(new RegExp(`^${set}:\\s+0000000000283002$`, "m"));
  expect(await agent.view.engine()).toBe("ebpf");
});

test.each([4, 6] as const)(
  "over IPv%d the first packet of a pod's first process goes through ztunnel",
  async (family) => {
    const name = `client-v${family}`;
    const wire = await Wire.listen(cluster().sandbox.node, BRIDGE);
    const pod = await cluster().kubelet.run(caller("shop", name, family));
    const outcome = await firstOutcome(pod);
    const bytes = await wire.stop();
    expect(outcome).toMatchObject({ server: "server", clientSeen: expect.stringContaining(`${ipOf(pod, family)}:`) });
    expect(hasPort(bytes, HBONE_PORT)).toBe(true);
    expect(hasPort(bytes, POD_PORT)).toBe(false);
    expect(bytes.includes(`marker-${name}`)).toBe(false);
    await until("it is annotated", () => cluster().sandbox.annotation("shop", name, REDIRECTION) === "enabled");
  },
);

test("a pod outside the mesh gets its own network, in the clear", async () => {
  const wire = await Wire.listen(cluster().sandbox.node, BRIDGE);
  const pod = await cluster().kubelet.run(caller("legacy", "client"));
  const outcome = await firstOutcome(pod);
  const bytes = await wire.stop();
  expect(outcome).toMatchObject({ server: "server", clientSeen: expect.stringContaining(`${ipOf(pod, 4)}:`) });
  expect(hasPort(bytes, POD_PORT)).toBe(true);
  expect(bytes.includes("marker-client")).toBe(true);
  expect(cluster().sandbox.annotation("legacy", "client", REDIRECTION)).toBeUndefined();
});

test(`${CROWD} pods started at once are all captured before their first packet; deleted, they leave nothing`, async () => {
  const { kubelet, sandbox } = cluster();
  const before = new Set(cluster().podTraces());
  const wire = await Wire.listen(sandbox.node, BRIDGE);
  const names = Array.from({ length: CROWD }, (_, index) => `crowd-${index}`);
  const pods = await Promise.all(names.map((name) => kubelet.run(caller("shop", name))));
  const outcomes = await Promise.all(pods.map(firstOutcome));
  const bytes = await wire.stop();
  expect(outcomes.map((outcome) => (answered(outcome) ? outcome.server : outcome))).toEqual(names.map(() => "server"));
  // Each was seen with its own address.
  expect(outcomes.map((outcome) => answered(outcome) && outcome.clientSeen.split(":")[0])).toEqual(
    pods.map((pod) => ipOf(pod, 4)),
  );
  expect(hasPort(bytes, POD_PORT)).toBe(false);
  expect(bytes.includes("marker-crowd")).toBe(false);

  await Promise.all(pods.map((pod) => kubelet.remove(pod)));
  await until("nothing is left of them", () =>
    cluster()
      .podTraces()
      .every((trace) => before.has(trace)),
  );
});
