// SPDX-License-Identifier: Apache-2.0
// The last steps of an agent that none of ours follows, in their order, and with each of them failing.
import { expect, test } from "vitest";
import { Agent } from "../../../src/agent/agent.ts";
import type { Config } from "../../../src/core/config/config.ts";
import { AgentError } from "../../../src/core/errors.ts";
import { eventually, FakeParts, makePod } from "../../fakes/parts.ts";
import { LogRecorder } from "../../support/recorder.ts";

class Recorded extends FakeParts {
  readonly log = new LogRecorder();
  override readonly logger = this.log;
}

/** Two captured pods; the journal begins after that. */
async function meshOfTwo(config: Partial<Config> = {}): Promise<{ parts: Recorded; agent: Agent }> {
  const parts = new Recorded(config);
  parts.run("a", { ips: ["10.0.0.1", "fd00::1"] });
  parts.run("b", { ips: ["10.0.0.2"] });
  const agent = new Agent(parts);
  await agent.start();
  await eventually("both are captured", () => parts.journal.filter((line) => line.startsWith("annotate")).length === 2);
  parts.journal.length = 0;
  return { parts, agent };
}

const inTime = (parts: FakeParts, ms = 5000) => parts.clock.now() + ms;
const logged = ({ log }: Recorded) => log.lines.map((line) => JSON.stringify(line)).join("\n");

test("nobody follows: pods stay captured, and probes reach them for good", async () => {
  const { parts, agent } = await meshOfTwo();
  await agent.depart("none", inTime(parts));
  expect(parts.journal).toEqual(["bequeath uid-a,uid-b", "vacate all but ns-a,ns-b"]);
  expect(parts.probes.heirs).toEqual([
    { uid: "uid-a", ips: ["10.0.0.1", "fd00::1"], engine: "nftables" },
    { uid: "uid-b", ips: ["10.0.0.2"], engine: "nftables" },
  ]);
  expect(logged(parts)).toContain("ambient-cni remove --uncapture");
  expect([...parts.finder.openHandles].map(({ id }) => id)).toEqual([]);
});

test("only what is captured, or may be, keeps its exemption", async () => {
  const { parts, agent } = await meshOfTwo({ ipv6: false });
  // In the mesh and not captured; captured once, but its netns is not found now; gone a moment ago.
  parts.ztunnel.connected = false;
  parts.run("waiting", { ips: ["10.0.0.3"] });
  await eventually(
    "it waits",
    () => parts.cluster.pod("uid-waiting")?.annotations["ambient.istio.io/redirection"] === "pending",
  );
  parts.cluster.store.delete("uid-b");
  const hidden = makePod("hidden", { ips: ["10.0.0.4"] });
  parts.cluster.putPod(hidden);
  agent.roster.ensure(hidden).touched = true;
  await agent.depart("none", inTime(parts));
  expect(parts.probes.heirs?.map(({ uid, ips }) => `${uid} ${ips}`)).toEqual(["uid-a 10.0.0.1", "uid-hidden 10.0.0.4"]);
});

test("a pod that an ADD has read live and the watch has never shown keeps its exemption", async () => {
  const { parts, agent } = await meshOfTwo();
  parts.cluster.store.delete("uid-b");
  const unseen = agent.roster.get("uid-b");
  if (unseen === undefined) throw new Error("b is not in the roster");
  unseen.admittedUntil = Date.now() - 1;
  await agent.depart("none", inTime(parts));
  expect(parts.probes.heirs?.map(({ uid }) => uid)).toEqual(["uid-a", "uid-b"]);
});

test("nothing is captured: the host is cleared", async () => {
  const parts = new Recorded();
  const agent = new Agent(parts);
  await agent.start();
  parts.journal.length = 0;
  await agent.depart("none", inTime(parts));
  expect(parts.journal).toEqual(["bequeath ", "vacate all but "]);
  expect(logged(parts)).toContain("nothing of ours is left on the node");
});

test("uncapture: drained, announced, taken from ztunnel, released, in this order for each pod", async () => {
  const { parts, agent } = await meshOfTwo({ uncaptureOnRemoval: true });
  await agent.depart("none", inTime(parts));
  expect(parts.journal.filter((line) => /\/a$|-a$| a /.test(line))).toEqual([
    "drain shop/a",
    "annotate a null",
    "zds del uid-a",
    "release ns-a",
  ]);
  expect(parts.journal.slice(-2)).toEqual(["bequeath ", "vacate all but ns-a,ns-b"]);
  expect(parts.dataplane.kernel.size).toBe(0);
});

test("uncapture waits for open connections, but not longer than kubelet does", async () => {
  const { parts, agent } = await meshOfTwo({ uncaptureOnRemoval: true, drainSeconds: 300 });
  parts.dataplane.proxied = 1;
  const began = performance.now();
  await agent.depart("none", inTime(parts, 2000));
  expect(performance.now() - began).toBeLessThan(1600);
  expect(performance.now() - began).toBeGreaterThan(700);
  expect(parts.dataplane.kernel.size).toBe(0);
});

test("uncapture: no right to annotate, a ztunnel that does not answer: pods are released, and it is said", async () => {
  const { parts, agent } = await meshOfTwo({ uncaptureOnRemoval: true });
  parts.cluster.annotateError = new AgentError("KUBE_FORBIDDEN", "no right any more");
  parts.ztunnel.del = () => new Promise(() => undefined);
  await agent.depart("none", inTime(parts));
  expect(parts.dataplane.kernel.size).toBe(0);
  expect(logged(parts)).toMatch(/annotation of released pods could not be removed.*no right any more/);
});

test("uncapture: a pod that can't be released stays captured with its exemption, and is named", async () => {
  const { parts, agent } = await meshOfTwo({ uncaptureOnRemoval: true });
  const release = parts.dataplane.release.bind(parts.dataplane);
  parts.dataplane.release = async (netns) => {
    if (netns.id === "ns-b") throw new AgentError("NFT_FAILED", "no nft");
    await release(netns);
  };
  await agent.depart("none", inTime(parts));
  expect(parts.probes.heirs?.map(({ uid }) => uid)).toEqual(["uid-b"]);
  expect(logged(parts)).toMatch(/stay captured.*shop\/b.*no nft/);
});

test("uncapture on a node so slow that ending connections would take all the time: pods are released all the same", async () => {
  const parts = new Recorded({ uncaptureOnRemoval: true });
  for (let at = 0; at < 100; at++) parts.run(`p${at}`, { ips: [`10.0.1.${at}`] });
  const agent = new Agent(parts);
  await agent.start();
  await eventually("all are captured", () => agent.pods().every(({ state }) => state === "enrolled"));
  parts.dataplane.proxied = 1;
  parts.dataplane.drain = () => new Promise((resolve) => setTimeout(resolve, 300));
  await agent.depart("none", inTime(parts, 2500));
  expect(parts.dataplane.kernel.size).toBe(0);
});

test("no time at all: nothing is begun, and every pod is named", async () => {
  const { parts, agent } = await meshOfTwo({ uncaptureOnRemoval: true });
  await agent.depart("none", parts.clock.now() - 1);
  expect(parts.journal).toEqual(["bequeath uid-a,uid-b", "vacate all but ns-a,ns-b"]);
  expect(logged(parts)).toMatch(/shop\/a.*grace period is over/);
});

test("another agent follows: pods are handed over, probes reach them until it takes care of that itself", async () => {
  const { parts, agent } = await meshOfTwo({ uncaptureOnRemoval: true });
  // First those that depend on an agent of ours.
  agent.roster.ensure(makePod("b")).engine = "ebpf";
  await agent.depart("other", inTime(parts));
  expect(parts.journal.slice(0, 2)).toEqual(["hand over shop/b", "hand over shop/a"]);
  expect(parts.journal.slice(2)).toEqual(["bequeath uid-a,uid-b", "vacate all but ns-a,ns-b"]);
  expect(parts.probes.heirs?.map(({ seconds }) => seconds)).toEqual([3600, 3600]);
});

test("a pod that can't be handed over stays ours, and keeps its exemption without an end", async () => {
  const { parts, agent } = await meshOfTwo();
  parts.dataplane.handOverError = new AgentError("IPTABLES_FAILED", "no iptables");
  await agent.depart("other", inTime(parts));
  expect(parts.probes.heirs?.map(({ seconds }) => seconds)).toEqual([undefined, undefined]);
  expect(logged(parts)).toMatch(/shop\/a.*no iptables/);
});

test("before the kernel was read nothing on the host is touched", async () => {
  const parts = new Recorded();
  parts.cluster.start = () => new Promise(() => undefined);
  const agent = new Agent(parts);
  void agent.start();
  await agent.depart("none", inTime(parts));
  expect(parts.journal.filter((line) => /bequeath|vacate/.test(line))).toEqual([]);
  expect(logged(parts)).toContain("ambient-cni remove");
});

test("what fails on the host is said, and the rest is done", async () => {
  const { parts, agent } = await meshOfTwo();
  parts.probes.bequeath = async () => {
    throw new AgentError("NFT_FAILED", "no nft");
  };
  parts.finder.inhabited = async () => {
    throw new Error("no /proc");
  };
  await agent.depart("none", inTime(parts));
  expect(logged(parts)).toMatch(/no nft/);
  expect(logged(parts)).toMatch(/no \/proc/);
  expect(parts.journal).toEqual([]);
});
