// SPDX-License-Identifier: Apache-2.0

/** The same numbers for the same seed; what the event loop makes of them differs from run to run. */
export class Chance {
  constructor(private state: number) {}

  /** 0 to 1, without 1. */
  number(): number {
    this.state = (Math.imul(this.state, 1_664_525) + 1_013_904_223) >>> 0;
    return this.state / 2 ** 32;
  }

  /** True so often, of 1. */
  is(part: number): boolean {
    return this.number() < part;
  }

  below(bound: number): number {
    return Math.floor(this.number() * bound);
  }

  of<T>(list: readonly T[]): T | undefined {
    return list[this.below(list.length)];
  }

  /** No time, one turn of the event loop or some milliseconds. */
  async moment(): Promise<void> {
    if (this.is(0.4)) return;
    if (this.is(0.5)) await new Promise((resolve) => setImmediate(resolve));
    else await pause(this.number() * 6);
  }
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
