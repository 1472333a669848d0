// SPDX-License-Identifier: Apache-2.0
import { expect, test } from "vitest";
import { Agent } from "../../../src/agent/agent.ts";
import type { PodStatus } from "../../../src/agent/census.ts";
import { Readiness } from "../../../src/agent/readiness.ts";
import type { Clock } from "../../../src/core/clock.ts";
import { AgentError } from "../../../src/core/errors.ts";
import { eventually, FakeParts } from "../../fakes/parts.ts";
import { LogRecorder } from "../../support/recorder.ts";

class HandClock implements Clock {
  time = 0;
  now(): number {
    return this.time;
  }
  after(): () => void {
    return () => undefined;
  }
}

function pod(name: string, changes: Partial<PodStatus> = {}): PodStatus {
  return {
    uid: `uid-${name}`,
    pod: `shop/${name}`,
    ips: ["10.0.0.1"],
    phase: "Running",
    state: "pending",
    reason: "namespace-label",
    detail: "",
    netns: undefined,
    engine: undefined,
    acked: false,
    captured: false,
    annotation: null,
    existing: 0,
    ...changes,
  };
}

function judge() {
  const clock = new HandClock();
  const logger = new LogRecorder();
  const readiness = new Readiness({ clock, logger });
  return {
    clock,
    logger,
    /** Sentences `ms` later. */
    after(ms: number, ...pods: PodStatus[]): string[] {
      clock.time += ms;
      return readiness.missing([], pods);
    },
    readiness,
  };
}

const failing = (name: string, reason = "NFT_FAILED", changes: Partial<PodStatus> = {}) =>
  pod(name, { state: "failing", reason, ...changes });
const enrolled = (name: string) => pod(name, { state: "enrolled", captured: true, reason: "" });

test("while the agent itself lacks something, that is said and nothing else", () => {
  const { readiness } = judge();
  expect(readiness.missing(["dataplane: no engine is proved yet"], [failing("a")])).toEqual([
    "dataplane: no engine is proved yet",
  ]);
});

test("before it was ready, every running pod of the mesh counts at once", () => {
  const { after } = judge();
  expect(after(0, pod("a"), enrolled("b"))).toEqual(["pod shop/a: namespace-label"]);
  expect(after(10, enrolled("a"), enrolled("b"))).toEqual([]);
});

test("once ready, a pod that is captured in a moment changes nothing, one that is not does", () => {
  const { after } = judge();
  expect(after(0, enrolled("a"))).toEqual([]);
  expect(after(10, enrolled("a"), pod("b"))).toEqual([]);
  expect(after(4000, enrolled("a"), pod("b"))).toEqual([]);
  expect(after(10, enrolled("a"), enrolled("b"))).toEqual([]);
  // It left and came again: its time begins anew.
  expect(after(10_000, enrolled("a"), pod("b"))).toEqual([]);
  expect(after(5000, enrolled("a"), failing("b"))).toEqual(["pod shop/b: NFT_FAILED"]);
  expect(after(10, enrolled("a"), enrolled("b"))).toEqual([]);
});

test.each([
  ["waits for a ztunnel", pod("b", { reason: "NO_ZTUNNEL" })],
  ["was refused by ztunnel", failing("b", "ZTUNNEL_REFUSED")],
  ["got no answer of ztunnel", failing("b", "ZTUNNEL_TIMEOUT")],
  ["has a wrong annotation", failing("b", "ANNOTATION_INVALID")],
  ["has a runtime without a Linux netns", failing("b", "POD_NOT_CAPTURABLE")],
  ["is captured, and can't be announced", failing("b", "KUBE_UNREACHABLE", { captured: true })],
  ["has no address yet", failing("b", "NFT_FAILED", { ips: [] })],
  ["does not run yet", failing("b", "NFT_FAILED", { phase: "Pending" })],
  ["leaves the mesh", pod("b", { state: "draining" })],
  ["has a sidecar", pod("b", { state: "sidecar" })],
])("a pod that %s does not count, at the start neither", (_why, one) => {
  expect(judge().after(0, one)).toEqual([]);
});

test("one pod that fails for ever holds up the node for a minute, and is told once", () => {
  const { after, logger } = judge();
  expect(after(0, failing("a"), enrolled("b"))).toHaveLength(1);
  expect(after(59_999, failing("a"), enrolled("b"))).toHaveLength(1);
  expect(after(1, failing("a"), enrolled("b"))).toEqual([]);
  expect(after(10_000, failing("a", "OTHER"), enrolled("b"))).toEqual([]);
  expect(logger.lines.filter(({ level }) => level === "warn")).toHaveLength(1);
  // Also where it is the node's only one.
  const alone = judge();
  alone.after(0, failing("a"));
  expect(alone.after(60_000, failing("a"))).toEqual([]);
});

test("where pods of several namespaces fail and none is captured, it is the node, however long it takes", () => {
  const { after } = judge();
  const other = failing("b", "NFT_FAILED", { pod: "other/b" });
  after(0, failing("a"), other);
  expect(after(600_000, failing("a"), other)).toHaveLength(2);
  expect(after(10, failing("a"), other, enrolled("c"))).toEqual([]);
});

test("a crowd is not named in full", () => {
  const many = Array.from({ length: 30 }, (_, index) => failing(`p${index}`));
  const missing = judge().after(0, ...many);
  expect(missing).toHaveLength(21);
  expect(missing.at(-1)).toBe("and 10 more pods");
});

test("the agent says what it lacks, in the order of its start, and when ztunnel's socket was removed", async () => {
  const parts = new FakeParts();
  const proofs: (() => void)[] = [];
  parts.dataplane.start = () => new Promise((resolve) => proofs.push(() => resolve([])));
  const agent = new Agent(parts);
  expect(agent.missing()[0]).toBe("kubernetes: pods and namespaces are not listed yet");
  const started = agent.start();
  await eventually("the caches are synced", () => parts.cluster.synced);
  expect(agent.missing()).toEqual([
    "dataplane: no engine is proved yet",
    "kernel: the pods' state is not read yet",
    "agent: not serving yet",
  ]);
  for (const prove of proofs) prove();
  await started;
  expect(agent.missing()).toEqual([]);
  parts.ztunnel.listening = false;
  expect(agent.missing()).toEqual(["ztunnel: its socket is gone from the node"]);
  parts.ztunnel.listening = true;
  await agent.stop();
});

test("an API server that is away makes no captured pod count", async () => {
  const parts = new FakeParts();
  parts.cluster.annotateError = new AgentError("KUBE_UNREACHABLE", "no route");
  parts.run("a");
  const agent = new Agent(parts);
  await agent.start();
  await eventually("the announcement failed", () => agent.pods()[0]?.reason === "KUBE_UNREACHABLE");
  expect(agent.pods()[0]).toMatchObject({ state: "failing", captured: true });
  expect(agent.missing()).toEqual([]);
  await agent.stop();
});
