// SPDX-License-Identifier: Apache-2.0
import type { Clock } from "../core/clock.ts";
import type { Stop } from "../core/disposable.ts";
import type { Target } from "./frame.ts";

/** ztunnel retries a refused workload every 5 s; asking at the same pace learns of its success soon after. */
const READD_PERIOD_MS = 5000;
const READD_JITTER = 0.2;

interface Refusal {
  readonly target: Target;
  readonly reason: string;
}

/**
 * Workloads whose add was refused while nobody waits for the answer. ztunnel retries them by itself
 * and says nothing when it succeeds, so each is added again every 5 s (a no-op ack once its proxy
 * runs) until it is acked or forgotten. One timer for all of them, none when there are none.
 */
export class Refusals {
  readonly #refusals = new Map<string, Refusal>();
  readonly #clock: Clock;
  readonly #random: () => number;
  readonly #due: (target: Target) => void;
  #cancel: Stop | undefined;

  constructor(clock: Clock, random: () => number, due: (target: Target) => void) {
    this.#clock = clock;
    this.#random = random;
    this.#due = due;
  }

  /** Returns true when this is news: a first refusal or another reason. */
  note(target: Target, reason: string): boolean {
    const before = this.#refusals.get(target.workload.uid);
    this.#refusals.set(target.workload.uid, { target, reason });
    this.#schedule();
    return before?.reason !== reason;
  }

  forget(uid: string): void {
    this.#refusals.delete(uid);
    if (this.#refusals.size === 0) this.stop();
  }

  stop(): void {
    this.#cancel?.();
    this.#cancel = undefined;
  }

  #schedule(): void {
    if (this.#cancel !== undefined) return;
    const delay = READD_PERIOD_MS * (1 + READD_JITTER * (2 * this.#random() - 1));
    this.#cancel = this.#clock.after(delay, () => {
      this.#cancel = undefined;
      this.#schedule();
      for (const { target } of [...this.#refusals.values()]) this.#due(target);
    });
  }
}
