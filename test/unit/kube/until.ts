// SPDX-License-Identifier: Apache-2.0
import { setTimeout as sleep } from "node:timers/promises";

/** Waits for a condition that real sockets bring about. */
export async function until(condition: () => boolean, otherwise: string): Promise<void> {
  const deadline = performance.now() + 8_000;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(otherwise);
    await sleep(2);
  }
}
