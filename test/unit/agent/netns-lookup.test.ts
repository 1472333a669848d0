// SPDX-License-Identifier: Apache-2.0
import { expect, test } from "vitest";
import { Agent } from "../../../src/agent/agent.ts";
import { NetnsLookup } from "../../../src/agent/netns-lookup.ts";
import type { Pod } from "../../../src/core/pod.ts";
import { eventually, FakeFinder, FakeParts, makePod } from "../../fakes/parts.ts";

function setUp(names: readonly string[]) {
  const finder = new FakeFinder();
  const pods = names.map((name) => makePod(name));
  for (const { uid } of pods) finder.proc.set(uid, `ns-${uid}`);
  const timers: { readonly at: number; readonly task: () => void }[] = [];
  let now = 0;
  const clock = {
    now: () => now,
    after: (ms: number, task: () => void) => {
      timers.push({ at: now + ms, task });
      return () => undefined;
    },
  };
  /** `early`: timers end so many ms before the clock says so, as Node's may. */
  const advance = (ms: number, early = 0) => {
    now += ms;
    for (const { at, task } of timers.splice(0)) at <= now + early ? task() : timers.push({ at, task });
  };
  let soon: readonly Pod[] = pods.slice(1);
  const lookup = new NetnsLookup(finder, clock, () => soon);
  const nobody = () => {
    soon = [];
  };
  return { finder, pods, lookup, advance, nobody };
}

test("one pass also finds what is asked for later, each handle handed out once", async () => {
  const { finder, pods, lookup, nobody } = setUp(["a", "b", "c"]);
  const [a, b, c] = pods;
  if (a === undefined || b === undefined || c === undefined) throw new Error("three pods");
  expect((await lookup.find(a))?.id).toBe(`ns-${a.uid}`);
  expect((await lookup.find(b))?.id).toBe(`ns-${b.uid}`);
  expect((await lookup.find(c))?.id).toBe(`ns-${c.uid}`);
  expect(finder.passes).toBe(1);
  nobody();
  expect((await lookup.find(b))?.id).toBe(`ns-${b.uid}`);
  expect(finder.passes).toBe(2);
  expect(finder.openHandles.size).toBe(4);
});

test("what nobody came for is closed after 5 s, and looked for again", async () => {
  const { finder, pods, lookup, advance, nobody } = setUp(["a", "b"]);
  const [a, b] = pods;
  if (a === undefined || b === undefined) throw new Error("two pods");
  (await lookup.find(a))?.close();
  nobody();
  expect(finder.openHandles.size).toBe(1);
  advance(4999);
  expect(finder.openHandles.size).toBe(1);
  advance(1);
  expect(finder.openHandles.size).toBe(0);
  finder.proc.set(b.uid, "ns-new");
  expect((await lookup.find(b))?.id).toBe("ns-new");
});

test("a timer that ends too early leaves nothing open", async () => {
  const { finder, pods, lookup, advance, nobody } = setUp(["a", "b"]);
  const [a] = pods;
  if (a === undefined) throw new Error("two pods");
  (await lookup.find(a))?.close();
  nobody();
  advance(4999.5, 0.5);
  expect(finder.openHandles.size).toBe(0);
});

test("close gives back what was kept, also what a pass under way still finds", async () => {
  const { finder, pods, lookup } = setUp(["a", "b"]);
  const [a] = pods;
  if (a === undefined) throw new Error("a pod");
  const asked = lookup.find(a);
  lookup.close();
  (await asked)?.close();
  expect(finder.openHandles.size).toBe(0);
});

test("100 pods labelled at once are found in two passes, and none stays open when the agent has stopped", async () => {
  const parts = new FakeParts();
  const agent = new Agent(parts, 1e9);
  await agent.start();
  const before = parts.finder.passes;
  for (let i = 0; i < 100; i++) parts.run(`p${i}`, { ips: [`10.0.0.${i}`] });
  await eventually("all", () => agent.pods().filter(({ state }) => state === "enrolled").length === 100);
  expect(parts.finder.passes - before).toBeLessThanOrEqual(2);
  await agent.stop();
  expect(parts.finder.openHandles.size).toBe(0);
});
