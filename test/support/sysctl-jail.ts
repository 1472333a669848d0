// SPDX-License-Identifier: Apache-2.0
// Runs where /proc/sys is read-only, in a netns of its own: sets a sysctl through the addon and says
// what it saw. Argument: "own" (netns of the process) or "other" (one made here).
import { readdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { native } from "../../src/native/load.ts";
import { createNetns } from "../../src/native/netns.ts";

const KEY = "net/ipv4/tcp_fwmark_accept";

const attempt = (action: () => void): string => {
  try {
    action();
    return "done";
  } catch (error) {
    if (!(error instanceof Error) || !("code" in error)) throw error;
    return `${error.code} ${error.message}`;
  }
};

const plainWrite = () => attempt(() => writeFileSync(`/proc/sys/${KEY}`, "1"));

/** How many mount namespaces the threads of this process live in. */
function mountNamespaces(): number {
  const found = new Set<string>();
  for (const thread of readdirSync("/proc/self/task")) {
    try {
      found.add(readlinkSync(`/proc/self/task/${thread}/ns/mnt`));
    } catch {
      // A thread that has ended meanwhile.
    }
  }
  return found.size;
}

using other = process.argv[2] === "other" ? createNetns() : undefined;
const target = other?.fd ?? null;
const before = plainWrite();
const set = attempt(() => native().sysctlSet(target, KEY, "1"));
console.log(
  JSON.stringify({
    before,
    set,
    value: native().sysctlGet(target, KEY),
    own: readFileSync(`/proc/sys/${KEY}`, "utf8").trim(),
    after: plainWrite(),
    mountNamespaces: mountNamespaces(),
  }),
);
