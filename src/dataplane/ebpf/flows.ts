// SPDX-License-Identifier: Apache-2.0
import { type Clock, systemClock } from "../../core/clock.ts";
import type { Stop } from "../../core/disposable.ts";
import type { Flow, FlowBatch } from "../../core/ports/flows.ts";
import type { BpfEvents, BpfFlow, BpfNode } from "../../native/bpf.ts";

/** ms between two looks into the ring, and what one look takes: together, the most that is told in a second. */
const LOOK_MS = 50;
const MOST = 512;
/** How long the programs go on telling when nobody asks any more: an agent that was killed can't tell them. */
export const LEASE_MS = 2000;

const NS_PER_MS = 1_000_000n;

/** The programs' clock (CLOCK_MONOTONIC, ns). */
const monotonic = (): bigint => process.hrtime.bigint();

/**
 * Reads the ring of events for as long as it is open. The programs tell only while a lease in the kernel runs,
 * which each look extends: closed or killed, they stop by themselves. What exceeds the bound fills the ring, and
 * the kernel counts what finds no room.
 */
export class FlowReader {
  readonly #events: BpfEvents;
  #until = 0n;
  #lost: number;
  #cancel: Stop = () => undefined;

  constructor(
    private readonly bpf: BpfNode,
    private readonly told: (batch: FlowBatch) => void,
    private readonly failed: (error: unknown) => void,
    private readonly clock: Clock = systemClock,
  ) {
    this.#events = bpf.events();
    try {
      // What a reader before us has left.
      while (this.#events.read(MOST).length > 0);
      this.#lost = bpf.eventsLost();
      this.#extend(monotonic());
    } catch (error) {
      this.#events.close();
      throw error;
    }
    this.#soon();
  }

  close(): void {
    this.#cancel();
    this.#events.close();
    try {
      this.bpf.tellUntil(0n);
    } catch {
      // Closed before us, with the engine: the lease ends by itself.
    }
  }

  #soon(): void {
    this.#cancel = this.clock.after(LOOK_MS, () => {
      try {
        this.#look();
        this.#soon();
      } catch (error) {
        this.close();
        this.failed(error);
      }
    });
  }

  #look(): void {
    const now = monotonic();
    const late = now - this.#until;
    this.#extend(now);
    const flows = this.#events.read(MOST);
    const total = this.bpf.eventsLost();
    const lost = total - this.#lost;
    this.#lost = total;
    const blindMs = late > 0n ? Math.ceil(Number(late / NS_PER_MS)) : 0;
    if (flows.length === 0 && lost === 0 && blindMs === 0) return;
    const offset = Date.now() - Number(now / NS_PER_MS);
    this.told({ flows: flows.map((flow) => flowOf(flow, offset)), lost, blindMs });
  }

  #extend(now: bigint): void {
    this.#until = now + BigInt(LEASE_MS) * NS_PER_MS;
    this.bpf.tellUntil(this.#until);
  }
}

function flowOf({ nanoseconds, cookie, verdict, ...rest }: BpfFlow, offset: number): Flow {
  return { ...rest, at: offset + Number(nanoseconds / NS_PER_MS), netns: cookie, word: verdict };
}
