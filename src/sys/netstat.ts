// SPDX-License-Identifier: Apache-2.0
import { Proc } from "./proc.ts";

/**
 * Packets that reverse path filtering has dropped in a process's network namespace since that was made
 * (LINUX_MIB_IPRPFILTER). undefined on a kernel that does not count them.
 * @throws errors of the file system
 */
export function reversePathDrops(procDir: string, pid: string): number | undefined {
  return counterIn(new Proc(procDir).netstat(pid), "IPReversePathFilter");
}

/** One counter of /proc/net/netstat: a line of names, then one of values. undefined: there is none of that name. */
export function counterIn(text: string, name: string): number | undefined {
  const lines = text.split("\n");
  for (let i = 0; i + 1 < lines.length; i += 2) {
    const names = lines[i]?.split(" ") ?? [];
    const at = names.indexOf(name, 1);
    if (at > 0) return Number(lines[i + 1]?.split(" ")[at]);
  }
  return undefined;
}
