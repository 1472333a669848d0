// SPDX-License-Identifier: Apache-2.0
// Who reads flows, when the datapath is asked for them, and what a reader that is too slow is told.
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { Agent } from "../../../src/agent/agent.ts";
import { HISTORY_MAX, type Monitor } from "../../../src/agent/monitor.ts";
import type { Stop } from "../../../src/core/disposable.ts";
import { type FlowLine, parseFlowLine } from "../../../src/core/flow/line.ts";
import type { Flow, FlowBatch, FlowSource } from "../../../src/core/ports/flows.ts";
import type { NetnsHandle } from "../../../src/core/ports/netns.ts";
import { eventually, FakeParts } from "../../fakes/parts.ts";

class FakeFlows implements FlowSource {
  available = true;
  opened = 0;
  #told: ((batch: FlowBatch) => void) | undefined;
  #failed: (error: unknown) => void = () => undefined;
  readonly #keys = new Map<string, bigint>();

  open(told: (batch: FlowBatch) => void, failed: (error: unknown) => void): () => void {
    this.opened += 1;
    this.#told = told;
    this.#failed = failed;
    return () => {
      this.#told = undefined;
    };
  }
  keyOf({ id }: NetnsHandle): bigint {
    const key = this.#keys.get(id) ?? BigInt(this.#keys.size + 1);
    this.#keys.set(id, key);
    return key;
  }

  get on(): boolean {
    return this.#told !== undefined;
  }
  tell(flows: readonly Flow[], missed: Partial<FlowBatch> = {}): void {
    this.#told?.({ flows, lost: 0, blindMs: 0, ...missed });
  }
  fail(): void {
    this.#told = undefined;
    this.#failed(new Error("the ring is gone"));
  }
}

const flow = (changes: Partial<Flow> = {}): Flow => ({
  ...{ at: Date.parse("2026-01-01T12:00:00Z"), netns: 1n, word: "outbound_captured", protocol: "tcp" },
  ...{ source: "10.66.0.2", sourcePort: 0, destination: "10.66.0.3", destinationPort: 80 },
  ...changes,
});

let parts: FakeParts;
let agent: Agent;
let source: FakeFlows;
let monitor: Monitor;
const stops: (() => void)[] = [];

beforeEach(async () => {
  parts = new FakeParts({ nodeName: "worker-3" });
  agent = new Agent(parts);
  source = new FakeFlows();
  monitor = agent.monitor(source);
  await agent.start();
});
afterEach(async () => {
  for (const stop of stops.splice(0)) stop();
  await agent.stop();
});

/** A reader that takes what it is given while `room` says so. */
function read(last = 0) {
  const reader: { room: boolean; lines: FlowLine[]; stop: Stop } = { room: true, lines: [], stop: () => undefined };
  reader.stop = monitor.read((text) => {
    if (reader.room) reader.lines.push(...text.trimEnd().split("\n").map(parseFlowLine));
    return reader.room;
  }, last);
  stops.push(reader.stop);
  return reader;
}

test("the datapath tells from the first reader to the last, and once for all", () => {
  expect(source.on).toBe(false);
  const [one, other] = [read(), read()];
  expect([source.on, source.opened]).toEqual([true, 1]);
  source.tell([flow()]);
  one.stop();
  one.stop();
  expect(source.on).toBe(true);
  source.tell([flow()]);
  other.stop();
  expect(source.on).toBe(false);
  expect([one, other].map(({ lines }) => lines.map(({ type }) => type))).toEqual([
    ["head", "flow"],
    ["head", "flow", "flow"],
  ]);
  read();
  expect([source.on, source.opened]).toEqual([true, 2]);
});

test("a flow has the names of its pod and of the other end", async () => {
  parts.run("web", { ips: ["10.66.0.2"] });
  parts.run("api", { ips: ["10.66.0.3"] });
  await eventually(
    "enrolled",
    () => parts.cluster.pod("uid-web") !== undefined && agent.roster.get("uid-web")?.netns !== undefined,
  );
  const netns = agent.roster.get("uid-web")?.netns;
  if (netns === undefined) throw new Error("no netns");
  const reader = read();
  source.tell([
    flow({ netns: source.keyOf(netns) }),
    flow({ netns: source.keyOf(netns), word: "inbound_probe", source: "10.66.0.3", sourcePort: 4000 }),
    flow({ netns: 99n }),
  ]);
  expect(reader.lines.slice(1)).toMatchObject([
    { pod: "shop/web", uid: "uid-web", direction: "out", verdict: "ztunnel", peer: "shop/api", sourcePort: null },
    { pod: "shop/web", direction: "in", verdict: "passed", reason: "probe", peer: "shop/api", sourcePort: 4000 },
    { pod: null, uid: null },
  ]);
  expect(reader.lines[0]).toMatchObject({
    type: "head",
    engines: expect.objectContaining({ nftables: expect.any(Number) }),
  });
});

describe("a reader that is too slow", () => {
  test("loses flows, is told how many, and the others lose none", () => {
    const [slow, quick] = [read(), read()];
    slow.room = false;
    source.tell([flow(), flow()]);
    source.tell([flow()], { lost: 4, blindMs: 30 });
    slow.room = true;
    source.tell([flow()]);
    expect(slow.lines.slice(1)).toMatchObject([
      { type: "blind", milliseconds: 30 },
      { type: "lost", events: 4, by: "kernel" },
      { type: "lost", events: 3, by: "reader" },
      { type: "flow" },
    ]);
    const types = ["flow", "flow", "flow", "blind", "lost", "flow"];
    expect(quick.lines.slice(1).map(({ type }) => type)).toEqual(types);
  });

  test("and never reads at all, costs no more than its count", () => {
    const never = read();
    never.room = false;
    for (let i = 0; i < 100; i++) source.tell(Array.from({ length: 100 }, () => flow()));
    never.room = true;
    source.tell([], { lost: 1 });
    expect(never.lines.slice(1)).toMatchObject([
      { type: "lost", events: 10_000, by: "reader" },
      { type: "lost", events: 1, by: "kernel" },
    ]);
  });
});

test("who comes later is shown the last ones, of at most so many", () => {
  read();
  const ports = Array.from({ length: HISTORY_MAX + 5 }, (_, index) => index + 1);
  source.tell(ports.map((destinationPort) => flow({ destinationPort })));
  const portsOf = (lines: readonly FlowLine[]) =>
    lines.flatMap((line) => (line.type === "flow" ? [line.destinationPort] : []));
  expect(portsOf(read(2).lines)).toEqual([HISTORY_MAX + 4, HISTORY_MAX + 5]);
  expect(portsOf(read(HISTORY_MAX).lines)).toHaveLength(HISTORY_MAX);
  expect(portsOf(read().lines)).toEqual([]);
});

test("an engine that tells no flows is shown by what its rules count", async () => {
  parts.run("web");
  await eventually("captured", () => agent.roster.get("uid-web")?.engine === "nftables");
  source.available = false;
  parts.dataplane.counted.set("ns-web", { outbound_captured: 5 });
  const reader = read();
  expect(source.opened).toBe(0);
  parts.dataplane.counted.set("ns-web", { outbound_captured: 8, inbound_captured: 1 });
  await eventually("counted", () => reader.lines.some(({ type }) => type === "counts"));
  expect(reader.lines[1]).toMatchObject({
    ...{ pod: "shop/web", engine: "nftables" },
    counts: { outbound_captured: 3, inbound_captured: 1 },
  });
});

test("a ring that can't be read any more is opened again", async () => {
  const reader = read();
  source.fail();
  await eventually("opened again", () => source.on);
  source.tell([flow()]);
  expect(reader.lines.map(({ type }) => type)).toEqual(["head", "flow"]);
});
