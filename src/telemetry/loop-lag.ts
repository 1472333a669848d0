// SPDX-License-Identifier: Apache-2.0
import type { Clock } from "../core/clock.ts";
import type { Stop } from "../core/disposable.ts";

const INTERVAL_MS = 500;
const WINDOW_MS = 10_000;

/** How late the event loop has been lately: a timer that should fire every half second says by how much. */
export class LoopLag {
  readonly #clock: Clock;
  #samples: { readonly at: number; readonly lag: number }[] = [];
  #cancel: Stop | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  start(): void {
    if (this.#cancel === undefined) this.#arm();
  }

  stop(): void {
    this.#cancel?.();
    this.#cancel = undefined;
  }

  /** The longest delay in ms of the last 10 seconds. */
  worst(): number {
    const oldest = this.#clock.now() - WINDOW_MS;
    return Math.max(0, ...this.#samples.filter(({ at }) => at >= oldest).map(({ lag }) => lag));
  }

  #arm(): void {
    const due = this.#clock.now() + INTERVAL_MS;
    this.#cancel = this.#clock.after(INTERVAL_MS, () => {
      const at = this.#clock.now();
      this.#samples = this.#samples.filter((sample) => sample.at >= at - WINDOW_MS);
      this.#samples.push({ at, lag: at - due });
      this.#arm();
    });
  }
}
