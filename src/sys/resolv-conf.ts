// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from "node:fs";
import { canonicalIp } from "../core/ip.ts";

/** Lines after this many are ignored; resolvers stop at three nameservers. */
const MAX_LINES = 1000;

/** Nameservers of a resolv.conf(5), canonical; lines that hold none are skipped. */
export function parseNameservers(text: string): string[] {
  const servers: string[] = [];
  for (const line of text.split("\n", MAX_LINES)) {
    const address = /^\s*nameserver\s+(\S+)/.exec(line)?.[1];
    if (address === undefined) continue;
    try {
      servers.push(canonicalIp(address));
    } catch {
      // A resolver skips such a line, and so do we.
    }
  }
  return servers;
}

/** Nameservers of the file, or undefined when it can't be read or holds none. */
export function nameserversOf(path: string): string[] | undefined {
  try {
    const servers = parseNameservers(readFileSync(path, "utf8"));
    return servers.length > 0 ? servers : undefined;
  } catch {
    return undefined;
  }
}
