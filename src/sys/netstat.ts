// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from "node:fs";

/**
 * Packets that reverse path filtering has dropped in a process's network namespace since that was made
 * (LINUX_MIB_IPRPFILTER). undefined on a kernel that does not count them.
 * @throws errors of the file system
 */
export function reversePathDrops(procDir: string, pid: string): number | undefined {
  return parseNetstat(readFileSync(`${procDir}/${pid}/net/netstat`, "utf8")).get("IPReversePathFilter");
}

/** Counters of /proc/net/netstat by name: a line of names, then one of values. */
export function parseNetstat(text: string): ReadonlyMap<string, number> {
  const counters = new Map<string, number>();
  const lines = text.split("\n");
  for (let i = 0; i + 1 < lines.length; i += 2) {
    const names = lines[i]?.split(" ") ?? [];
    const values = lines[i + 1]?.split(" ") ?? [];
    for (const [at, name] of names.entries()) if (at > 0) counters.set(name, Number(values[at]));
  }
  return counters;
}
