// SPDX-License-Identifier: Apache-2.0

const FIRST_MS = 100;
const MAX_MS = 5000;
/** After this long without a repair (ms) the next one is immediate again. */
const QUIET_MS = 60_000;

/**
 * How soon a pod may be repaired again. The first repair is immediate; a pod whose own processes keep
 * undoing it (CAP_NET_ADMIN is enough) must not keep the node's agent busy with it.
 */
export class RepairPace {
  private last = Number.NEGATIVE_INFINITY;
  private gap = 0;

  /** Notes a repair. `now` on any monotonic clock, in ms. */
  repaired(now: number): void {
    this.gap = now - this.last > QUIET_MS ? FIRST_MS : Math.min(MAX_MS, this.gap * 2);
    this.last = now;
  }

  /** ms to wait before the next look. */
  delay(now: number): number {
    return now - this.last > QUIET_MS ? 0 : Math.max(0, this.last + this.gap - now);
  }

  /** True for the first repairs after a quiet time: the later ones are no news. */
  get isNews(): boolean {
    return this.gap <= 4 * FIRST_MS;
  }
}
