// SPDX-License-Identifier: Apache-2.0
import type { Clock } from "../core/clock.ts";
import type { Stop } from "../core/disposable.ts";
import type { NativeBinding } from "../native/binding.ts";

/** One capture makes a handful of changes, and some programs make hundreds in a row. */
const COALESCE_MS = 20;

/**
 * Calls back at most once per 20 ms while nf_tables, rules, routes, addresses or links of the netns change.
 * The timer is not put off by further changes: one who changes things without a pause is told too.
 * Two fds until stopped. @throws NativeError when the netns can't be watched.
 */
export function watchNetns(binding: NativeBinding, clock: Clock, netns: number, changed: () => void): Stop {
  let timer: Stop | undefined;
  let stopped = false;
  const touched = () => {
    if (stopped) return;
    timer ??= clock.after(COALESCE_MS, () => {
      timer = undefined;
      changed();
    });
  };
  const stopNft = binding.nftWatch(netns, touched);
  let stopRoutes: Stop;
  try {
    // Links count too: one that goes down takes its IPv4 routes with it, of which the kernel says nothing.
    stopRoutes = binding.routeWatch(netns, touched);
  } catch (error) {
    stopNft();
    throw error;
  }
  return () => {
    if (stopped) return;
    stopped = true;
    timer?.();
    stopNft();
    stopRoutes();
  };
}
