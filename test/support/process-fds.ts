// SPDX-License-Identifier: Apache-2.0
import { readdirSync, readlinkSync } from "node:fs";

/** Kinds of fd that the addon makes; pipes and eventfds belong to Node and to the test runner. */
const OURS = /^(net:|socket:|anon_inode:\[pidfd\]|pidfd:|\/dev\/null)/;

/** Fds of kinds that the addon makes, as "number target". */
export function ourFds(): readonly string[] {
  const found: string[] = [];
  for (const fd of readdirSync("/proc/self/fd")) {
    try {
      const target = readlinkSync(`/proc/self/fd/${fd}`);
      if (OURS.test(target)) found.push(`${fd} ${target}`);
    } catch {
      // The directory's own fd is gone by now.
    }
  }
  return found;
}

/** The netns of every thread of this process, each once. */
export function threadNetns(): readonly string[] {
  const found = new Set<string>();
  for (const thread of readdirSync("/proc/self/task")) {
    try {
      found.add(readlinkSync(`/proc/self/task/${thread}/ns/net`));
    } catch {
      // A thread that has ended meanwhile.
    }
  }
  return [...found];
}
