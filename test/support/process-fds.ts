// SPDX-License-Identifier: Apache-2.0
import { readdirSync, readFileSync, readlinkSync } from "node:fs";

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

/** PF_EXITING: the kernel lets a joiner go on before a thread has given its namespaces back. */
const EXITING = 0x4;

function exiting(thread: string): boolean {
  const stat = readFileSync(`/proc/self/task/${thread}/stat`, "latin1");
  // state, ppid, pgrp, session, tty, tpgid, flags: what follows the name in parentheses.
  const flags = Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[6]);
  return (flags & EXITING) !== 0;
}

/** The netns of every thread of this process that can still run code, each once. */
export function threadNetns(): readonly string[] {
  const found = new Set<string>();
  for (const thread of readdirSync("/proc/self/task")) {
    try {
      const netns = readlinkSync(`/proc/self/task/${thread}/ns/net`);
      if (!exiting(thread)) found.add(netns);
    } catch {
      // A thread that has ended meanwhile.
    }
  }
  return [...found];
}
