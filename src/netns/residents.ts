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
  /** A process in it, as the node's /proc names it. */
  readonly pid: string;
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
      const opened = oldest === undefined ? undefined : openOneOf(proc, oldest.pids, oldest.netns);
      if (opened === undefined) continue;
      const isContainer = key.startsWith(CONTAINER);
      residents.push({
        podUid: isContainer ? undefined : key,
        containerId: isContainer ? key.slice(CONTAINER.length) : undefined,
        ...opened,
      });
    }
    return residents;
  } finally {
    host.close();
  }
}

/** Processes end while we look, and their numbers are used again. */
function openOneOf(
  proc: Proc,
  pids: readonly string[],
  id: string,
): { readonly netns: HeldNetns; readonly pid: string } | undefined {
  for (const pid of pids) {
    try {
      const netns = openNetns(proc.netnsPath(pid));
      if (netns.id === id) return { netns, pid };
      netns.close();
    } catch {
      // Gone: the next one may live.
    }
  }
  return undefined;
}
