// SPDX-License-Identifier: Apache-2.0
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { native } from "../../../src/native/load.ts";
import { createNetns, type HeldNetns, openNetns } from "../../../src/native/netns.ts";
import { guardFds } from "../../support/fds.ts";
import { inNetns } from "../../support/netns-lab.ts";

/** Of what a busy machine takes its time for. */
const PATIENT = { timeout: 10_000 };

guardFds();

let netns: HeldNetns;
beforeEach(() => {
  netns = createNetns();
});
afterEach(() => {
  netns.close();
});

const RULE = { family: 4, priority: 9, table: 9 } as const;
const ROUTE = { family: 6, table: 9, type: "local", dst: "fd00::", prefix: 16, oif: 1 } as const;

test.each([
  ["rule", () => native().ruleAdd(netns.fd, RULE)],
  ["route", () => native().routeReplace(netns.fd, ROUTE)],
  ["address", () => native().addressAdd(netns.fd, "lo", "10.5.5.5", 32)],
  ["link", () => native().vethAdd(netns.fd, "a0", "b0", netns.fd)],
] as const)("a change of a %s is told, once per kind", async (what, change) => {
  const told: string[] = [];
  const stop = native().routeWatch(netns.fd, (kind) => told.push(kind));
  try {
    change();
    await vi.waitFor(() => expect(told).toContain(what), PATIENT);
    expect(new Set(told).size).toBe(told.length);
  } finally {
    stop();
  }
});

test("another netns's changes are not told, and nothing is after stop", async () => {
  using another = createNetns();
  const told: string[] = [];
  const here = vi.fn();
  const stopThere = native().routeWatch(another.fd, (kind) => told.push(kind));
  const stopHere = native().routeWatch(netns.fd, here);
  stopHere();
  stopHere();
  native().ruleAdd(netns.fd, RULE);
  native().ruleAdd(another.fd, { ...RULE, priority: 10 });
  await vi.waitFor(() => expect(told).toEqual(["rule"]), PATIENT);
  expect(here).not.toHaveBeenCalled();
  stopThere();
});

test("a watch outlives the netns's fd and goes on after a flood that overruns its buffer", async () => {
  using again = openNetns(`/proc/self/fd/${netns.fd}`);
  const told = new Set<string>();
  const stop = native().routeWatch(netns.fd, (kind) => told.add(kind));
  for (let i = 0; i < 4000; i++) {
    const route = { ...ROUTE, family: 4, dst: `10.${i >> 8}.${i & 255}.1`, prefix: 32 } as const;
    native().routeReplace(netns.fd, route);
  }
  netns.close();
  // Lost messages count as a change of everything.
  await vi.waitFor(() => expect(told).toEqual(new Set(["link", "address", "route", "rule", "filter"])), PATIENT);
  told.clear();
  native().ruleAdd(again.fd, RULE);
  await vi.waitFor(() => expect(told).toContain("rule"), PATIENT);
  stop();
});

test("an nf_tables transaction is told, a refused one is not", async () => {
  const changed = vi.fn();
  const stop = native().nftWatch(netns.fd, changed);
  try {
    await inNetns(netns, "nft", "table inet t { chain c { }; }");
    await vi.waitFor(() => expect(changed).toHaveBeenCalledTimes(1), PATIENT);
    await expect(inNetns(netns, "nft", "add rule inet t none accept")).rejects.toThrow();
    await inNetns(netns, "nft", "list ruleset");
    expect(changed).toHaveBeenCalledTimes(1);
    await inNetns(netns, "nft", "delete table inet t");
    await vi.waitFor(() => expect(changed).toHaveBeenCalledTimes(2), PATIENT);
  } finally {
    stop();
  }
});

test("a callback may stop its own watch", async () => {
  const told: string[] = [];
  const stop = native().routeWatch(netns.fd, (kind) => {
    told.push(kind);
    stop();
  });
  native().vethAdd(netns.fd, "a0", "b0", netns.fd);
  native().ruleAdd(netns.fd, RULE);
  await vi.waitFor(() => expect(told).toHaveLength(1), PATIENT);
  await new Promise((resolve) => setImmediate(resolve));
  expect(told).toHaveLength(1);
});
