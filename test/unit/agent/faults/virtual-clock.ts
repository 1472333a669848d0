// SPDX-License-Identifier: Apache-2.0
import type { Clock } from "../../../../src/core/clock.ts";

/** Turns of the event loop without anything happening after which nothing is under way. */
const QUIET_TURNS = 5;

interface Timer {
  readonly at: number;
  readonly task: () => void;
}

/** Time that passes only when nothing else is left to do, and then at once. */
export class VirtualClock implements Clock {
  /** Grows with everything that happens. */
  activity = 0;
  #now = 1000;
  readonly #timers = new Set<Timer>();

  now(): number {
    return this.#now;
  }

  after(ms: number, task: () => void): () => void {
    const timer = { at: this.#now + ms, task };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }

  pause(ms: number): Promise<void> {
    return new Promise((resolve) => this.after(ms, resolve));
  }

  /** Lets so much time pass, or less when `over`. */
  async pass(ms: number, over: () => boolean = () => false): Promise<void> {
    const end = this.#now + ms;
    for (await this.#quiet(); !over(); await this.#quiet()) {
      let due: Timer | undefined;
      for (const timer of this.#timers) if (due === undefined || timer.at < due.at) due = timer;
      if (due === undefined || due.at > end) break;
      this.#timers.delete(due);
      this.#now = Math.max(this.#now, due.at);
      this.activity += 1;
      due.task();
    }
    if (!over()) this.#now = end;
  }

  async #quiet(): Promise<void> {
    for (let turns = 0; turns < QUIET_TURNS; turns++) {
      const before = this.activity;
      await new Promise((resolve) => setImmediate(resolve));
      if (this.activity !== before) turns = -1;
    }
  }
}
