// SPDX-License-Identifier: Apache-2.0
import type { Clock } from "../core/clock.ts";

/** Resolves after `ms`, or at once when the signal aborts: the caller looks at the signal afterwards. */
export function delay(clock: Clock, ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const done = () => {
      cancel();
      signal.removeEventListener("abort", done);
      resolve();
    };
    const cancel = clock.after(ms, done);
    signal.addEventListener("abort", done, { once: true });
  });
}
