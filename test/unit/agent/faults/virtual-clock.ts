// SPDX-License-Identifier: Apache-2.0
import { ManualClock } from "../../zds/manual-clock.ts";

/** Turns of the event loop without anything happening after which nothing is under way. */
const QUIET_TURNS = 5;

/** Time that passes only when nothing else is left to do, and then at once. */
export class VirtualClock extends ManualClock {
  /** Grows with everything that happens. */
  activity = 0;

  pause(ms: number): Promise<void> {
    return new Promise((resolve) => this.after(ms, resolve));
  }

  /** Lets so much time pass, or less when `over`. */
  async pass(ms: number, over: () => boolean = () => false): Promise<void> {
    const end = this.now() + ms;
    for (await this.#quiet(); !over(); await this.#quiet()) {
      // Before it runs, so that what it does is waited for.
      this.activity += 1;
      if (!this.runNext(end)) break;
    }
    if (!over()) this.reach(end);
  }

  async #quiet(): Promise<void> {
    for (let turns = 0; turns < QUIET_TURNS; turns++) {
      const before = this.activity;
      await new Promise((resolve) => setImmediate(resolve));
      if (this.activity !== before) turns = -1;
    }
  }
}
