// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from "node:fs";
import type { Proc } from "./proc.ts";

/**
 * Pid of a pidfd's process in the pid namespace of `procDir`, whichever namespaces it and we are in.
 * Undefined when the process has ended or is not to be seen there. The fd stays the caller's.
 */
export function hostPidOf(pidfd: number, procDir: string): number | undefined {
  // `self` too is resolved by the proc instance: our pid in its namespace.
  const text = readFileSync(`${procDir}/self/fdinfo/${pidfd}`, "utf8");
  const pid = Number(/^Pid:\s+(-?\d+)$/m.exec(text)?.[1] ?? Number.NaN);
  if (Number.isNaN(pid)) throw new Error(`fd ${pidfd} is no pidfd`);
  return pid > 0 ? pid : undefined;
}

/**
 * Processes that call themselves ztunnel, for kernels that don't tell a socket's peer (SO_PEERPIDFD, 6.5).
 * Anyone may take the name: a reason to look closer, no proof.
 */
export function ztunnelPids(proc: Proc): number[] {
  return proc
    .pids()
    .filter((pid) => {
      try {
        return proc.stat(pid).comm === "ztunnel";
      } catch {
        return false;
      }
    })
    .map(Number);
}
