// SPDX-License-Identifier: Apache-2.0
// The parts that a pod's start needs go away and come back, one after the other.
import { setTimeout } from "node:timers/promises";
import { beforeAll, expect, test } from "vitest";
import { BRIDGE } from "../../src/sandbox/network.ts";
import { ipOf } from "../../src/sandbox/pod-records.ts";
import { until } from "../../src/sandbox/until.ts";
import { hasPort, Wire } from "../../src/sandbox/wire.ts";
import { ownChart } from "../support/runtime/charts.ts";
import type { CriError } from "../support/runtime/cri.ts";
import { type CriPod, POD_PORT } from "../support/runtime/cri-kubelet.ts";
import { ScriptedZtunnel } from "../support/runtime/scripted-ztunnel.ts";
import { useCluster } from "../support/runtime/use-cluster.ts";
import { REDIRECTION } from "../support/sandbox.ts";

const IN_TIME_MS = 60_000;

const cluster = useCluster(() => ({ chart: ownChart() }));
let server: CriPod;
/** What containerd itself has forgotten when it was killed: not ours, and there to the end. */
let lost: string[] = [];

beforeAll(async () => {
  cluster().namespace("shop", "ambient");
  cluster().namespace("legacy", "none");
  server = await cluster().kubelet.run({ namespace: "shop", name: "server" });
});

/** A pod of the mesh whose first process begins with a connection to the server. */
const caller = (name: string) => ({
  namespace: "shop",
  name,
  args: ["first", ipOf(server, 4), String(POD_PORT), `marker-${name}`, name],
});

const chatter = (name: string) => ({ namespace: "shop", name, args: ["chat", ipOf(server, 4), String(POD_PORT)] });

/** What the pod's first connection came to. */
async function firstOutcome(pod: CriPod): Promise<unknown> {
  await until("its first connection has ended", () => cluster().kubelet.output(pod).length > 0);
  return JSON.parse(cluster().kubelet.output(pod)[0] ?? "");
}

/** Nothing of the mesh's traffic was readable, and some of it passed. */
function expectNoClearText(bytes: Buffer): void {
  expect(hasPort(bytes, POD_PORT)).toBe(false);
  expect(bytes.includes("marker-")).toBe(false);
  expect(hasPort(bytes, 15008)).toBe(true);
}

/** Ends a chatting pod. @returns what it printed last: how often it was answered, and how often not */
async function sums(pod: CriPod): Promise<{ opened: number; said: number; failures: number }> {
  await cluster().kubelet.stop(pod);
  const lines = cluster().kubelet.output(pod);
  expect(lines.filter((line) => line.includes("failed"))).toEqual([]);
  return JSON.parse(lines.at(-1) ?? "");
}

const removePods = async (pods: readonly CriPod[]) => {
  for (const pod of pods) await cluster().kubelet.remove(pod);
};

test("the agent's container is gone: pods of the mesh wait and start by themselves when it is back, others start at once", async () => {
  const { kubelet, agent, sandbox } = cluster();
  const wire = await Wire.listen(sandbox.node, BRIDGE);
  await agent.stopContainer();
  expect(await kubelet.connect(server, server, "marker-own")).toMatchObject({ server: "server" });

  const refusals: CriError[] = [];
  kubelet.records.create(caller("waiting"));
  const before = cluster().podTraces().length;
  await expect(kubelet.start(caller("waiting"))).rejects.toMatchObject({
    details: expect.stringMatching(
      /istio-cni agent does not answer .*pluginevent\.sock.*kubectl -n istio-system get pods/,
    ),
  });
  expect(cluster().podTraces()).toHaveLength(before);
  const waiting = kubelet.startInTime(caller("waiting"), IN_TIME_MS, (error) => refusals.push(error));
  const other = await kubelet.run({ namespace: "legacy", name: "other" });

  await until("it was refused again", () => refusals.length > 1);
  await agent.startContainer();
  const pod = await waiting;
  expect(await firstOutcome(pod)).toMatchObject({
    server: "server",
    clientSeen: expect.stringContaining(ipOf(pod, 4)),
  });
  await agent.ready();
  await until("it is annotated", () => sandbox.annotation("shop", "waiting", REDIRECTION) === "enabled");
  expectNoClearText(await wire.stop());
  await removePods([pod, other]);
});

test("containerd is killed and starts again: running pods notice nothing, new ones are captured, old ones can be removed", async () => {
  const { kubelet, containerd, sandbox } = cluster();
  const before = new Set(cluster().podTraces());
  const wire = await Wire.listen(sandbox.node, BRIDGE);
  const chat = await kubelet.run(chatter("chat"));
  await until("it chats", () => kubelet.output(chat).length > 0);
  // One start is under way, with luck in our plugin.
  kubelet.records.create(caller("across"));
  const interrupted = expect(kubelet.start(caller("across"))).rejects.toThrow("UNAVAILABLE");
  await setTimeout(150);
  await containerd.kill();
  await interrupted;
  await containerd.start();
  const across = await kubelet.startInTime(caller("across"), IN_TIME_MS);
  const after = await kubelet.run(caller("after"));
  for (const pod of [across, after]) expect(await firstOutcome(pod)).toMatchObject({ server: "server" });
  const { failures, opened, said } = await sums(chat);
  expect(failures).toBe(0);
  expect(Math.min(opened, said)).toBeGreaterThan(10);
  expectNoClearText(await wire.stop());
  await removePods([chat, across, after]);
  lost = cluster()
    .podTraces()
    .filter((trace) => !before.has(trace));
});

test("the agent is upgraded while pods start: each starts in the end, captured from its first packet, and no connection is cut", async () => {
  const { kubelet, sandbox } = cluster();
  const wire = await Wire.listen(sandbox.node, BRIDGE);
  const chat = await kubelet.run(chatter("chat"));
  await until("it chats", () => kubelet.output(chat).length > 0);

  let upgraded = false;
  const refusals: CriError[] = [];
  const pods: CriPod[] = [];
  const starting = ["a", "b"].map(async (series) => {
    // One more in each series that meets the new agent only.
    for (let index = 0, more = 1; more > 0; index++) {
      if (upgraded) more--;
      const request = caller(`upgrade-${series}${index}`);
      kubelet.records.create(request);
      pods.push(await kubelet.startInTime(request, IN_TIME_MS, (error) => refusals.push(error)));
    }
  });
  await until("a pod has started", () => pods.length > 0);
  await cluster().upgradeAgent("localhost/ambient-cni:next");
  upgraded = true;
  await Promise.all(starting);

  for (const pod of pods) expect(await firstOutcome(pod)).toMatchObject({ server: "server" });
  for (const { name } of pods) {
    await until(`${name} is annotated`, () => sandbox.annotation("shop", name, REDIRECTION) === "enabled");
  }
  for (const { details } of refusals)
    expect(details).toMatch(/istio-cni agent does not answer|AGENT_STARTING|NO_ZTUNNEL/);
  expect(refusals.length).toBeGreaterThan(0);
  expect((await sums(chat)).failures).toBe(0);
  expectNoClearText(await wire.stop());
  await removePods([chat, ...pods]);
});

test("without ztunnel, with one that refuses and one that is slow: pods wait with the reason, running ones stay closed", async () => {
  const { kubelet, sandbox } = cluster();
  const client = await kubelet.run(caller("client"));
  expect(await firstOutcome(client)).toMatchObject({ server: "server" });
  const wire = await Wire.listen(sandbox.node, BRIDGE);
  await sandbox.ztunnels.at(-1)?.child.end(10_000);
  await cluster().agent.view.ztunnelsConnected(0);

  const late = caller("late");
  kubelet.records.create(late);
  await expect(kubelet.start(late)).rejects.toMatchObject({ details: expect.stringContaining("NO_ZTUNNEL") });
  expect(await kubelet.connect(client, server, "marker-closed")).toEqual({ failed: "connect", code: "ECONNREFUSED" });
  {
    using refusing = new ScriptedZtunnel(sandbox.node, ({ kind }) =>
      kind === "add" ? { error: "failure to start proxy : Bind([::]:15008)" } : {},
    );
    await until("it has its snapshot", () => refusing.seen.some(({ kind }) => kind === "snapshot_sent"));
    await expect(kubelet.start(late)).rejects.toMatchObject({
      details: expect.stringMatching(/Bind\(\[::\]:15008\).*ZTUNNEL_REFUSED/),
    });
  }
  await cluster().agent.view.ztunnelsConnected(0);
  {
    using slow = new ScriptedZtunnel(sandbox.node, ({ kind }) => (kind === "add" ? { afterMs: 1500 } : {}));
    await until("it has its snapshot", () => slow.seen.some(({ kind }) => kind === "snapshot_sent"), 60_000);
    const began = Date.now();
    const pod = await kubelet.run({ namespace: "shop", name: "slow" });
    expect(Date.now() - began).toBeGreaterThan(1500);
    expect(slow.connected).toBe(true);
    // Acknowledged, captured, and nobody there: closed, not clear.
    expect(await kubelet.connect(pod, server, "marker-slow")).toEqual({ failed: "connect", code: "ECONNREFUSED" });
    await removePods([pod]);
  }
  const waiting = kubelet.startInTime(late, IN_TIME_MS);
  await cluster().startZtunnel();
  const pod = await waiting;
  expect(await firstOutcome(pod)).toMatchObject({ server: "server" });
  await until("the older pod is served again", async () => {
    const outcome = await kubelet.connect(client, server, "marker-again");
    return "server" in outcome;
  });
  expectNoClearText(await wire.stop());
  await removePods([client, pod]);
});

test("pods are removed after the agent has gone: the plugin needs nobody for that, and the next agent finds nothing", async () => {
  const { kubelet, agent } = cluster();
  const pod = await kubelet.run(caller("doomed"));
  expect(await firstOutcome(pod)).toMatchObject({ server: "server" });
  await agent.remove();
  await removePods([pod, server]);
  expect(cluster().podTraces()).toEqual(lost);
  await cluster().startAgent();
  using told = new ScriptedZtunnel(cluster().sandbox.node, () => ({}));
  await until("it has its snapshot", () => told.seen.some(({ kind }) => kind === "snapshot_sent"));
  expect(told.seen).toEqual([{ kind: "snapshot_sent" }]);
});
