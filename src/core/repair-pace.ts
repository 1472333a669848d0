// SPDX-License-Identifier: Apache-2.0

const FIRST_MS = 100;
const MAX_MS = 5000;
/** After this long without a repair (ms) the next one is immediate again. */
const QUIET_MS = 60_000;

/**
 * How soon something may be repaired again. The first repair is immediate; whoever keeps undoing it (a
 * pod's own processes, another program on the node) must not keep the agent busy with it.
 */
export class RepairPace {
  private last = Number.NEGATIVE_INFINITY;
  private gap = 0;
  private repairs = 0;

  /** Notes that a repair begins: its own changes are seen, and must not start the next one. `now` on any monotonic clock, in ms. */
  begins(now: number): void {
    const quiet = now - this.last > QUIET_MS;
    this.gap = quiet ? FIRST_MS : Math.min(MAX_MS, this.gap * 2);
    if (quiet) this.repairs = 0;
    this.last = now;
  }

  /** The repair that began last has succeeded. */
  repaired(): void {
    this.repairs += 1;
  }

  /** ms to wait before the next look. */
  delay(now: number): number {
    return now - this.last > QUIET_MS ? 0 : Math.max(0, this.last + this.gap - now);
  }

  /** Repairs that succeeded one after the other, without a quiet time between. */
  count(now: number): number {
    return now - this.last > QUIET_MS ? 0 : this.repairs;
  }

  /** True for the first attempts after a quiet time: the later ones are no news. */
  get isNews(): boolean {
    return this.gap <= 4 * FIRST_MS;
  }
}
