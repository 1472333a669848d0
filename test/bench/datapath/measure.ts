// SPDX-License-Identifier: Apache-2.0
import { setTimeout as sleep } from "node:timers/promises";
import type { AddressFamily } from "../../../src/native/binding.ts";
import { type Direction, Ground } from "./ground.ts";
import type { LoadCounts, Programs, Service } from "./programs.ts";
import type { Variant } from "./variants.ts";

export type Mode = "bulk" | "latency" | "connections";
/** In this order, since new connections leave the most behind. */
export const MODES: readonly Mode[] = ["bulk", "latency", "connections"];

/** One turn of one variant in one direction. */
export interface Sample {
  /** New connections per second. */
  readonly connections: number;
  /** Microseconds of a 64-byte request and its answer over a kept connection. */
  readonly p50: number;
  readonly p99: number;
  /** Gbit/s. */
  readonly bulk: number;
  /** Microseconds per connection that the CPUs of the three programs were busy, whoever was to blame. */
  readonly cpu: number;
  /** Microseconds per connection that client, proxy and server were charged. */
  readonly ownCpu: number;
}

const IN_FLIGHT: Readonly<Record<Mode, number>> = { bulk: 4, latency: 1, connections: 32 };

interface ListenerCounts {
  readonly accepted: number;
  readonly unexpected: number;
  readonly surprise: string;
}

type ProxyCounts = Readonly<Record<Direction, ListenerCounts>> & { readonly failed: number; readonly cpu: number };

interface ServerCounts {
  readonly accepted: number;
  readonly mismatched: number;
  readonly received: number;
  readonly cpu: number;
}

interface Outcome {
  readonly load: LoadCounts;
  readonly busySeconds: number;
  readonly ownSeconds: number;
}

/** One variant in one direction in a pod made for it, with the proxy inside. */
export class Trial implements AsyncDisposable {
  readonly #outcomes: Readonly<Record<Mode, Outcome[]>> = { bulk: [], latency: [], connections: [] };

  private constructor(
    private readonly programs: Programs,
    readonly variant: Variant,
    private readonly direction: Direction,
    private readonly ground: Ground,
    private readonly proxy: Service,
  ) {}

  /** Resolves when the pod is captured. @throws Error when that fails; nothing is left. */
  static async open(programs: Programs, variant: Variant, direction: Direction, family: AddressFamily): Promise<Trial> {
    const ground = new Ground(family);
    const told = variant.redirects ? "--expect" : "--fixed-destination";
    const proxy = programs.start("proxy", ground.pod, [told, ground.destinations(direction)]);
    const trial = new Trial(programs, variant, direction, ground, proxy);
    try {
      await variant.meet(proxy.pid);
      proxy.tell();
      await proxy.ready();
      await variant.capture(ground);
    } catch (error) {
      await trial[Symbol.asyncDispose]();
      throw error;
    }
    return trial;
  }

  /**
   * Measures for so many seconds; the n-th run of each mode makes the n-th sample.
   * @throws Error when a connection failed, did not pass the proxy, or came to another destination than its own.
   */
  async run(mode: Mode, seconds: number): Promise<void> {
    const { programs, ground, variant, direction, proxy } = this;
    // Without redirection the proxy chooses among the destinations, so their ports say nothing.
    const check = variant.redirects || direction === "inbound";
    const serverArgs = ground.serverArguments(direction, check);
    if (mode === "bulk") serverArgs.push("--sink");
    await using server = await programs.start("echo", ground.callee(direction), serverArgs).ready();
    const proxyBefore = await proxy.counts<ProxyCounts>();
    const serverBefore = await server.counts<ServerCounts>();
    const to = variant.redirects ? ground.destinations(direction) : ground.listeners(direction);
    const from = direction === "inbound" ? ["--from", ground.clients] : [];
    const loadArgs = ["--mode", mode, "--parallel", String(IN_FLIGHT[mode]), "--to", to, ...from];
    const busyBefore = programs.busySeconds();
    using _meanwhile = variant.during?.() ?? { [Symbol.dispose]: () => undefined };
    const load = await programs.load(ground.caller(direction), seconds, loadArgs);
    const busySeconds = programs.busySeconds() - busyBefore;
    // The last connections are still being closed.
    await sleep(20);
    const proxyAfter = await proxy.counts<ProxyCounts>();
    const serverAfter = await server.counts<ServerCounts>();
    assertHonest(direction, load, proxyBefore, proxyAfter, serverAfter);
    const ownSeconds = load.cpu + proxyAfter.cpu - proxyBefore.cpu + serverAfter.cpu - serverBefore.cpu;
    this.#outcomes[mode].push({ load, busySeconds, ownSeconds });
  }

  /** One sample per turn: the n-th run of each mode. */
  samples(): Sample[] {
    const { bulk, latency, connections } = this.#outcomes;
    return connections.map(({ load, busySeconds, ownSeconds }, turn) => ({
      connections: number(load.perSecond),
      p50: number(latency[turn]?.load.p50),
      p99: number(latency[turn]?.load.p99),
      bulk: number(bulk[turn]?.load.gigabits),
      cpu: (busySeconds * 1e6) / load.opened,
      ownCpu: (ownSeconds * 1e6) / load.opened,
    }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.variant.release(this.ground);
    } finally {
      await this.proxy[Symbol.asyncDispose]();
      this.ground.close();
    }
  }
}

/** Every connection went through the proxy's listener of this direction, and to where its caller wanted. */
function assertHonest(
  direction: Direction,
  load: LoadCounts,
  before: ProxyCounts,
  after: ProxyCounts,
  server: ServerCounts,
): void {
  const other = direction === "outbound" ? "inbound" : "outbound";
  const { unexpected, surprise } = after[direction];
  const facts: [what: string, seen: number, wanted: number][] = [
    ["connections that failed", load.failed, 0],
    ["connections that hung", load.hung, 0],
    [
      `connections that the proxy took as ${direction}`,
      after[direction].accepted - before[direction].accepted,
      load.opened,
    ],
    [`connections that the proxy took as ${other}`, after[other].accepted - before[other].accepted, 0],
    [`original destinations that nobody asked for (${surprise})`, unexpected, 0],
    ["connections that the proxy could not pass on", after.failed - before.failed, 0],
    ["connections that came to the server", server.accepted, load.opened],
    ["connections that came to another destination, or from another client", server.mismatched, 0],
    ["bytes that came to the server", load.bytes === undefined ? 0 : server.received, load.bytes ?? 0],
  ];
  const wrong = facts.filter(([, seen, wanted]) => seen !== wanted);
  if (wrong.length === 0) return;
  throw new Error(wrong.map(([what, seen, wanted]) => `${what}: ${seen}, not ${wanted}`).join("; "));
}

/** @throws Error when the client printed no such result. */
function number(value: number | undefined): number {
  if (value === undefined || !Number.isFinite(value)) throw new Error("the client printed no result");
  return value;
}
