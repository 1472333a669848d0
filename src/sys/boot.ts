// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from "node:fs";

/** The running kernel's boot id: state that was written before a reboot can be told by it. */
export function bootId(): string {
  return readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
}
