// SPDX-License-Identifier: Apache-2.0
import type { Clock } from "../core/clock.ts";
import type { Stop } from "../core/disposable.ts";

/**
 * Runs `missed` when `ms` have passed. Timers run before sockets are read: when our own loop was
 * blocked past the deadline, the answer may lie in the socket already, so the loop gets one more turn.
 */
export function deadline(clock: Clock, ms: number, missed: () => void): Stop {
  let cancel = clock.after(ms, () => {
    cancel = clock.after(1, missed);
  });
  return () => cancel();
}
