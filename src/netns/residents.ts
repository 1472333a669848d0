// SPDX-License-Identifier: Apache-2.0
import { type HeldNetns, openNetns } from "../native/netns.ts";
import { Proc } from "../sys/proc.ts";
import { ancestorsOf, findHostNetns, forbiddenIds } from "./host.ts";
import { sightings } from "./scan.ts";

/** A pod as its processes show it, without the API: by uid, or by container where the cgroup has no uid. */
export interface Resident {
  readonly podUid: string | undefined;
  readonly containerId: string | undefined;
  /** That of its oldest process. The caller closes it. */
  readonly netns: HeldNetns;
}

const CONTAINER = "container:";

/**
 * Every pod with a process in a netns that is not the node's. A pod whose runtime keeps its processes from
 * the node's /proc (a virtual machine) is not seen.
 * @throws AgentError PROC_UNREADABLE | HOST_NETNS_UNKNOWN
 */
export async function findResidents(procDir: string): Promise<readonly Resident[]> {
  const proc = new Proc(procDir);
  const ancestors = ancestorsOf(proc);
  const { handle: host } = findHostNetns(proc, false);
  const residents: Resident[] = [];
  try {
    const found = await sightings(
      proc,
      ({ podUid, containerId }) => [podUid ?? CONTAINER + containerId],
      forbiddenIds(host, proc),
      ancestors,
    );
    for (const [key, [oldest]] of found) {
      const netns = oldest === undefined ? undefined : openOneOf(proc, oldest.pids, oldest.netns);
      if (netns === undefined) continue;
      const isContainer = key.startsWith(CONTAINER);
      residents.push({
        podUid: isContainer ? undefined : key,
        containerId: isContainer ? key.slice(CONTAINER.length) : undefined,
        netns,
      });
    }
    return residents;
  } finally {
    host.close();
  }
}

/** Processes end while we look, and their numbers are used again. */
function openOneOf(proc: Proc, pids: readonly string[], id: string): HeldNetns | undefined {
  for (const pid of pids) {
    try {
      const netns = openNetns(proc.netnsPath(pid));
      if (netns.id === id) return netns;
      netns.close();
    } catch {
      // Gone: the next one may live.
    }
  }
  return undefined;
}
