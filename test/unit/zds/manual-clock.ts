// SPDX-License-Identifier: Apache-2.0
import type { Clock } from "../../../src/core/clock.ts";

interface Timer {
  readonly at: number;
  readonly task: () => void;
}

/** Time that moves only when a test says so. */
export class ManualClock implements Clock {
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

  get pending(): number {
    return this.#timers.size;
  }

  /** Runs what falls due within `ms`, in order, letting promises settle after each. */
  async advance(ms: number): Promise<void> {
    const end = this.#now + ms;
    while (this.runNext(end)) await settled();
    this.reach(end);
    await settled();
  }

  /** Goes to the next timer that falls due until `end`, and runs it. False: there is none. */
  protected runNext(end: number): boolean {
    let due: Timer | undefined;
    for (const timer of this.#timers) if (due === undefined || timer.at < due.at) due = timer;
    if (due === undefined || due.at > end) return false;
    this.#timers.delete(due);
    this.#now = Math.max(this.#now, due.at);
    due.task();
    return true;
  }

  protected reach(end: number): void {
    this.#now = end;
  }
}

/** Resolves when every promise and every fake delivery under way has settled. */
export async function settled(): Promise<void> {
  for (let turn = 0; turn < 4; turn++) await new Promise((resolve) => setImmediate(resolve));
}
