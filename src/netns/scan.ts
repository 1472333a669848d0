// SPDX-License-Identifier: Apache-2.0
import { CONFIG_HASH_ANNOTATION } from "../core/constants.ts";
import type { Pod } from "../core/pod.ts";
import type { NetnsId } from "../core/ports/netns.ts";
import type { Proc } from "../sys/proc.ts";
import { type CgroupOwner, cgroupOwner } from "./cgroup.ts";

/** Processes of one pod seen in one network namespace. */
export interface Sighting {
  readonly netns: NetnsId;
  /** The oldest few, oldest first: more than one, because processes end while we look. */
  readonly pids: readonly string[];
}

interface Seen {
  readonly netns: NetnsId;
  processes: { readonly pid: string; readonly startTime: bigint }[];
}

const KEPT_PIDS = 4;
/** The event loop is held at most about this long, in ms. */
const PORTION_MS = 4;

/** Returns a function to await between portions of synchronous work: it lets others run once 4 ms are used up. */
export function portions(): () => Promise<void> | undefined {
  let end = performance.now() + PORTION_MS;
  return () => {
    if (performance.now() < end) return undefined;
    return new Promise((resolve) => {
      setImmediate(() => {
        end = performance.now() + PORTION_MS;
        resolve();
      });
    });
  };
}

/** One pass over the node's processes for all wanted pods, by pod uid. */
export function scan(
  proc: Proc,
  wanted: readonly Pod[],
  forbidden: ReadonlySet<NetnsId>,
  ancestors: ReadonlySet<string>,
): Promise<Map<string, Sighting[]>> {
  const owners = ownerIndex(wanted);
  // With a uid the container id must not decide: the uid is kubelet's, an id further in may be anyone's.
  return sightings(proc, ({ podUid, containerId }) => owners.get(podUid ?? containerId ?? ""), forbidden, ancestors);
}

/**
 * One pass over the node's processes. By each of the keys that `keysOf` gives to a process's owner, the
 * namespaces its processes live in, that of its oldest process first. A process that ends or cannot be read
 * is passed over.
 */
export async function sightings(
  proc: Proc,
  keysOf: (owner: CgroupOwner) => Iterable<string> | undefined,
  forbidden: ReadonlySet<NetnsId>,
  ancestors: ReadonlySet<string>,
): Promise<Map<string, Sighting[]>> {
  const seen = new Map<string, Map<NetnsId, Seen>>();
  const portion = portions();
  for (const pid of proc.pids()) {
    await portion();
    try {
      const netns = proc.netnsId(pid);
      // Most processes of a node end here: kernel threads and daemons.
      if (forbidden.has(netns)) continue;
      const owner = cgroupOwner(proc.cgroup(pid), ancestors);
      const keys = owner === undefined ? undefined : keysOf(owner);
      if (keys === undefined) continue;
      const { startTime } = proc.stat(pid);
      for (const key of keys) note(seen, key, netns, pid, startTime);
    } catch {
      // Ended since the directory was read, or not readable by us: the others count.
    }
  }
  return new Map([...seen].map(([uid, namespaces]) => [uid, oldestFirst([...namespaces.values()])]));
}

/**
 * Pod uids by everything a cgroup may call the pod: uid, a static pod's hash, its containers' ids. The
 * hash comes from an annotation, which anyone can write: several pods may claim it, and who has the
 * address gets it.
 */
function ownerIndex(pods: readonly Pod[]): ReadonlyMap<string, ReadonlySet<string>> {
  const index = new Map<string, Set<string>>();
  for (const pod of pods) {
    for (const id of [pod.uid, pod.annotations[CONFIG_HASH_ANNOTATION], ...pod.containerIds]) {
      if (id === undefined) continue;
      const uids = index.get(id) ?? new Set();
      index.set(id, uids.add(pod.uid));
    }
  }
  return index;
}

function note(
  seen: Map<string, Map<NetnsId, Seen>>,
  uid: string,
  netns: NetnsId,
  pid: string,
  startTime: bigint,
): void {
  const namespaces = seen.get(uid) ?? new Map<NetnsId, Seen>();
  seen.set(uid, namespaces);
  const entry = namespaces.get(netns) ?? { netns, processes: [] };
  namespaces.set(netns, entry);
  entry.processes.push({ pid, startTime });
  if (entry.processes.length > KEPT_PIDS) entry.processes = byAge(entry.processes).slice(0, KEPT_PIDS);
}

const age = (a: { readonly startTime: bigint }, b: { readonly startTime: bigint }): number =>
  a.startTime < b.startTime ? -1 : a.startTime > b.startTime ? 1 : 0;

function byAge(processes: Seen["processes"]): Seen["processes"] {
  return [...processes].sort(age);
}

function oldestFirst(namespaces: readonly Seen[]): Sighting[] {
  return namespaces
    .map(({ netns, processes }) => ({ netns, processes: byAge(processes) }))
    .sort((a, b) => age(a.processes[0] ?? { startTime: 0n }, b.processes[0] ?? { startTime: 0n }))
    .map(({ netns, processes }) => ({ netns, pids: processes.map(({ pid }) => pid) }));
}
