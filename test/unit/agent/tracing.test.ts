// SPDX-License-Identifier: Apache-2.0
// What is said of one connection: by the datapath's word, by the reason for none, or by why nothing was tried.
import { afterEach, beforeEach, expect, test } from "vitest";
import { Agent } from "../../../src/agent/agent.ts";
import type { FlowBatch, FlowSource } from "../../../src/core/ports/flows.ts";
import type { Traced, Tracer } from "../../../src/core/ports/trace.ts";
import { parseDocument } from "../../../src/core/report/documents.ts";
import { eventually, FakeParts } from "../../fakes/parts.ts";

const TO = { address: "10.66.0.9", port: 80 };

let parts: FakeParts;
let agent: Agent;
let told: ((batch: FlowBatch) => void) | undefined;
let traced: Traced;
let obstacle: string | undefined;
/** What happens while the connection is made. */
let meanwhile: () => void;

const source: FlowSource = {
  available: true,
  open: (one) => {
    told = one;
    return () => {
      told = undefined;
    };
  },
  keyOf: () => 1n,
};
const tracer: Tracer = {
  obstacle: () => obstacle,
  trace: async () => {
    meanwhile();
    return traced;
  },
};

beforeEach(async () => {
  parts = new FakeParts();
  agent = new Agent(parts);
  obstacle = undefined;
  meanwhile = () => undefined;
  traced = { hops: [{ at: performance.now(), hop: "connect", result: "ok", text: "connected" }], answered: "ztunnel" };
  await agent.start();
  parts.run("web", { ips: ["10.66.0.2"] });
  await eventually("captured", () => agent.roster.get("uid-web")?.engine === "nftables");
});
afterEach(() => agent.stop());

async function trace(uid = "uid-web", to = TO) {
  const monitor = agent.monitor(source);
  const tracing = agent.tracing(agent.inspection({ prove: async () => [] }), monitor, tracer);
  return parseDocument("trace", JSON.parse(JSON.stringify(await tracing.trace(uid, to))));
}

const flow = (word: string, changes: object = {}) => ({
  ...{ at: Date.now(), netns: 1n, word, protocol: "tcp" as const, source: "10.66.0.2", sourcePort: 0 },
  ...{ destination: TO.address, destinationPort: TO.port, ...changes },
});

test("the programs' own word, not that of another connection, nor ztunnel's; then they are silent again", async () => {
  const enrollment = agent.roster.get("uid-web");
  if (enrollment !== undefined) enrollment.engine = "ebpf";
  meanwhile = () =>
    told?.({
      flows: [
        flow("outbound_local", { destinationPort: 81 }),
        flow("outbound_ztunnel"),
        flow("inbound_captured"),
        flow("outbound_excluded"),
      ],
      ...{ lost: 0, blindMs: 0 },
    });
  const report = await trace();
  expect(report).toMatchObject({ pod: "shop/web", destination: "10.66.0.9:80", verdict: "ztunnel", problem: null });
  expect(report.hops.map(({ hop, text }) => [hop, text])).toEqual([
    ["decision", "passed (excluded): in an excluded network"],
    ["connect", "connected"],
  ]);
  expect(told).toBeUndefined();
  meanwhile = () => undefined;
  expect((await trace()).hops[0]).toMatchObject({ result: "unseen" });
});

test("counters that rose, where the engine has no word for single flows", async () => {
  parts.dataplane.counted.set("ns-web", { outbound_captured: 4, outbound_dns: 1 });
  meanwhile = () => parts.dataplane.counted.set("ns-web", { outbound_captured: 5, outbound_dns: 1 });
  expect((await trace()).hops[0]?.text).toBe("the rules of nftables have counted meanwhile: to ztunnel's 15001");
});

test("why nothing captures the pod", async () => {
  parts.run("out", { ips: ["10.66.0.3"], labels: { "istio.io/dataplane-mode": "none" } });
  traced = { ...traced, answered: "outside" };
  const report = await trace("uid-out");
  expect(report.verdict).toBe("passed");
  expect(report.hops[0]?.text).toMatch(/^the pod is not captured: .*dataplane-mode/);
});

test.each<[string, () => Promise<unknown>, RegExp]>([
  ["with the node's network", async () => parts.run("host", { hostNetwork: true }), /node's network/],
  [
    "without a process",
    async () => parts.finder.proc.delete(parts.run("idle", { ips: ["10.66.0.4"] }).uid),
    /none of its/,
  ],
  ["without an address of the family", async () => parts.run("four", { ips: ["10.66.0.5"] }), /no IPv6 address/],
])("a pod %s is not tried", async (_, prepare, why) => {
  await prepare();
  const uid = [...parts.cluster.pods()].map((pod) => pod.uid).at(-1) ?? "";
  const report = await trace(uid, uid === "uid-four" ? { address: "fd00::1", port: 80 } : TO);
  expect(report).toMatchObject({ verdict: null, hops: [], problem: expect.stringMatching(why) });
});

test("a runtime that handles packets itself is not tried, and a netns that can't be read is said", async () => {
  obstacle = "10.66.0.2 is on no interface";
  expect((await trace()).problem).toMatch(/on no interface, and a connection made there would prove nothing/);
  obstacle = undefined;
  meanwhile = () => {
    throw new Error("EMFILE");
  };
  expect((await trace()).problem).toBe("EMFILE");
  await expect(trace("uid-nobody")).rejects.toThrow(/uid-nobody/);
});
