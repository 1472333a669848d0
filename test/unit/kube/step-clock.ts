// SPDX-License-Identifier: Apache-2.0
import type { Clock } from "../../../src/core/clock.ts";
import { until } from "./until.ts";

interface Timer {
  readonly at: number;
  readonly ms: number;
  readonly task: () => void;
}

/** No backoff and no Retry-After is longer; the idle watchdog is. */
const LONGEST_SLEEP_MS = 60_000;

/** Time that moves only when a test says so, beside a network that runs by itself. */
export class StepClock implements Clock {
  #now = 5_000;
  readonly #timers = new Set<Timer>();

  now(): number {
    return this.#now;
  }

  after(ms: number, task: () => void): () => void {
    const timer = { at: this.#now + ms, ms, task };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }

  /** Waits until somebody sleeps (the idle watchdog does not count) and says for how many ms. */
  async sleeping(): Promise<number> {
    await until(() => this.#sleeper() !== undefined, "nobody sleeps");
    return this.#sleeper()?.ms ?? Number.NaN;
  }

  get asleep(): boolean {
    return this.#sleeper() !== undefined;
  }

  advance(ms: number): void {
    this.#now += ms;
    for (const timer of [...this.#timers].sort((a, b) => a.at - b.at)) {
      if (timer.at > this.#now || !this.#timers.delete(timer)) continue;
      timer.task();
    }
  }

  #sleeper(): Timer | undefined {
    return [...this.#timers].find((timer) => timer.ms <= LONGEST_SLEEP_MS);
  }
}
