// SPDX-License-Identifier: Apache-2.0
// What the dataplane hears of ztunnels, and when.
import { afterEach, expect, test } from "vitest";
import { Agent } from "../../../src/agent/agent.ts";
import { captureSpec } from "../../../src/agent/desire.ts";
import { eventually, FakeParts } from "../../fakes/parts.ts";

let agent: Agent | undefined;

afterEach(async () => {
  await agent?.stop();
  agent = undefined;
});

async function started(parts: FakeParts): Promise<Agent> {
  agent = new Agent(parts, 1e9);
  await agent.start();
  return agent;
}

async function enrolled(count: number): Promise<void> {
  await eventually("enrolled", () => agent?.pods().filter(({ state }) => state === "enrolled").length === count);
  await eventually("quiet", () => agent?.reconciler.queue.depth === 0);
}

test("a pod's listeners are told between ztunnel's ack and its capture", async () => {
  const parts = new FakeParts();
  parts.run("web");
  await started(parts);
  await enrolled(1);
  expect(parts.dataplane.heard).toEqual(["listeners of ns-web: prepared, absent"]);
});

test("a pod that ztunnel took in its snapshot: told at the ack, and again once the pod is prepared", async () => {
  const parts = new FakeParts();
  parts.ztunnel.connected = false;
  parts.run("web");
  await started(parts);
  await eventually("pending", () => agent?.pods()[0]?.state === "pending");
  parts.ztunnel.connect();
  await enrolled(1);
  expect(parts.dataplane.heard).toEqual([
    "meet 1",
    "listeners of ns-web: absent",
    "listeners of ns-web: prepared, absent",
  ]);
});

test("a capture that fails after ztunnel's ack is tried again after a pause, not at once for ever", async () => {
  const parts = new FakeParts();
  parts.dataplane.captureError = new Error("the kernel refuses");
  parts.run("web");
  await started(parts);
  await eventually("failed", () => agent?.pods()[0]?.state === "failing");
  for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setImmediate(resolve));
  // The annotation that tells of the failure is a change too, and brings the second try forward.
  expect(parts.journal.filter((entry) => entry === "zds add web").length).toBeLessThanOrEqual(2);
});

test("a captured pod that was in no snapshot, since its netns was found too late for it, is introduced once one is ready", async () => {
  const parts = new FakeParts();
  parts.ztunnel.connected = false;
  const pod = parts.run("web", { annotations: { "ambient.istio.io/redirection": "enabled" } });
  const { spec } = captureSpec(parts.config, pod, pod.ips, parts.nameservers);
  parts.dataplane.kernel.set("ns-web", { mode: "captured", prepared: true, spec: JSON.stringify(spec) });
  parts.finder.proc.delete(pod.uid);
  await started(parts);
  await eventually("not found", () => agent?.pods()[0]?.reason === "NETNS_NOT_FOUND");
  // A snapshot that is cut now is without it.
  expect(parts.ztunnel.snapshot?.()).toEqual([]);
  parts.finder.proc.set(pod.uid, "ns-web");
  agent?.reconciler.queue.trigger(pod.uid);
  await enrolled(1);
  expect(parts.ztunnel.known.size).toBe(0);
  parts.ztunnel.connected = true;
  parts.ztunnel.listener?.changed();
  await eventually("introduced", () => parts.ztunnel.known.get(pod.uid) === "ns-web");
});

test("when a ztunnel goes, the dataplane looks at the listeners of every captured pod", async () => {
  const parts = new FakeParts();
  const names = Array.from({ length: 40 }, (_, index) => `web${index}`);
  for (const [index, name] of names.entries()) parts.run(name, { ips: [`10.0.1.${index}`] });
  await started(parts);
  await enrolled(40);
  parts.dataplane.heard.length = 0;
  parts.ztunnel.disconnect();
  await eventually("all read", () => parts.dataplane.heard.length === 40);
  expect([...parts.dataplane.heard].sort()).toEqual(
    names.map((name) => `listeners of ns-${name}: prepared, captured`).sort(),
  );
});

test("a pod that goes while the listeners are read is left out", async () => {
  const parts = new FakeParts();
  const pods = Array.from({ length: 20 }, (_, index) => parts.run(`web${index}`, { ips: [`10.0.1.${index}`] }));
  await started(parts);
  await enrolled(20);
  parts.dataplane.heard.length = 0;
  parts.ztunnel.disconnect();
  // The first portion has been read; the last pod is forgotten before its turn.
  agent?.roster.remove(pods[19]?.uid ?? "");
  await eventually("the others are read", () => parts.dataplane.heard.length >= 19);
  await new Promise((resolve) => setImmediate(resolve));
  expect(parts.dataplane.heard).not.toContain("listeners of ns-web19: prepared, captured");
});
