// SPDX-License-Identifier: Apache-2.0
// The reader of the ring on a clock of the test's own: what it takes, what it missed, and how it ends.
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { FlowBatch } from "../../../src/core/ports/flows.ts";
import { FlowReader, LEASE_MS } from "../../../src/dataplane/ebpf/flows.ts";
import type { BpfFlow, BpfNode } from "../../../src/native/bpf.ts";

const NS = 1_000_000n;

let now: bigint;
let ring: BpfFlow[];
let lost: number;
let closed: number;
let leases: bigint[];
let broken: Error | undefined;
let task: (() => void) | undefined;
let told: FlowBatch[];
let failures: unknown[];

const flow = (): BpfFlow => ({
  ...{ nanoseconds: now, cookie: 7n, verdict: "outbound_captured", protocol: "tcp" },
  ...{ source: "10.66.0.2", sourcePort: 0, destination: "10.66.0.3", destinationPort: 80 },
});

function open(): FlowReader {
  const bpf: Pick<BpfNode, "events" | "eventsLost" | "tellUntil"> = {
    events: () => ({ read: (most) => ring.splice(0, most), close: () => closed++ }),
    eventsLost: () => {
      if (broken !== undefined) throw broken;
      return lost;
    },
    tellUntil: (until) => {
      if (broken !== undefined) throw broken;
      leases.push(until);
    },
  };
  const clock = {
    now: () => Number(now / NS),
    after: (_: number, next: () => void) => {
      task = next;
      return () => {
        task = undefined;
      };
    },
  };
  return new FlowReader(
    bpf as BpfNode,
    (batch) => told.push(batch),
    (error) => failures.push(error),
    clock,
  );
}

function look(afterMs: number): void {
  now += BigInt(afterMs) * NS;
  const due = task;
  task = undefined;
  due?.();
}

beforeEach(() => {
  [now, ring, lost, closed, leases, broken, task, told, failures] = [
    10n ** 12n,
    [],
    0,
    0,
    [],
    undefined,
    undefined,
    [],
    [],
  ];
  vi.spyOn(process.hrtime, "bigint").mockImplementation(() => now);
});
afterEach(() => vi.restoreAllMocks());

test("each look extends the lease, and takes a bounded number; closed, the lease ends at once", () => {
  const reader = open();
  ring = Array.from({ length: 700 }, flow);
  lost = 3;
  look(50);
  look(50);
  look(50);
  expect(told.map(({ flows, lost: missed, blindMs }) => [flows.length, missed, blindMs])).toEqual([
    [512, 3, 0],
    [188, 0, 0],
  ]);
  const lease = BigInt(LEASE_MS) * NS;
  expect(leases.map((until) => (until - 10n ** 12n - lease) / NS)).toEqual([0n, 50n, 100n, 150n]);
  reader.close();
  expect([leases.at(-1), closed, task]).toEqual([0n, 1, undefined]);
});

test("what a reader before it left is not told, nor what was lost then", () => {
  ring = Array.from({ length: 1300 }, flow);
  lost = 40;
  open();
  look(50);
  expect(told).toEqual([]);
});

test("a look that comes after the end of the lease says how long nothing was told", () => {
  open();
  look(LEASE_MS + 310);
  expect(told).toMatchObject([{ flows: [], lost: 0, blindMs: 310 }]);
});

test("a ring that can't be read ends the reader, once, without a throw", () => {
  const reader = open();
  broken = new Error("EBADF");
  look(50);
  expect([failures, closed, task]).toEqual([[broken], 1, undefined]);
  reader.close();
  expect(failures).toHaveLength(1);
});
