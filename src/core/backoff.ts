// SPDX-License-Identifier: Apache-2.0

export interface BackoffOptions {
  /** First delay, in ms. */
  readonly initialMs: number;
  /** Ceiling of the delay before jitter, in ms. */
  readonly maxMs: number;
  /** Part of the delay that is random, 0..1: 0.2 gives 80 %..120 %. */
  readonly jitter: number;
}

/** Delay before try number `attempt` (0 = the first retry), doubling up to the ceiling. */
export function backoffMs(options: BackoffOptions, attempt: number, random: () => number = Math.random): number {
  const base = Math.min(options.maxMs, options.initialMs * 2 ** Math.min(attempt, 30));
  return base * (1 + options.jitter * (2 * random() - 1));
}
