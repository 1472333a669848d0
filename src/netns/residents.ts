// SPDX-License-Identifier: Apache-2.0
import type { NetnsId } from "../core/ports/netns.ts";
import { type HeldNetns, openNetns } from "../native/netns.ts";
import { Proc } from "../sys/proc.ts";
import { ancestorsOf, findHostNetns, forbiddenIds } from "./host.ts";
import { type Sighting, sightings } from "./scan.ts";

/** A pod as its processes show it, without the API: by uid, or by container where the cgroup has no uid. */
export interface Resident {
  readonly podUid: string | undefined;
  readonly containerId: string | undefined;
  /** That of its oldest process. The caller closes it. */
  readonly netns: HeldNetns;
  /** A process in it, as the node's /proc names it. */
  readonly pid: string;
}

/** Where a pod's processes were seen. Nothing is held open: it may have gone since. */
interface SeenPod extends Sighting {
  readonly podUid: string | undefined;
  readonly containerId: string | undefined;
}

const CONTAINER = "container:";

/**
 * Every pod with a process in a netns that is not the node's. A pod whose runtime keeps its processes from
 * the node's /proc (a virtual machine) is not seen.
 * @throws AgentError PROC_UNREADABLE | HOST_NETNS_UNKNOWN
 */
export function findResidents(procDir: string): Promise<readonly Resident[]> {
  return new NodeResidents(procDir).all();
}

/** The pods of a node for one command: its processes are gone through once, however often pods are looked into. */
export class NodeResidents {
  readonly #proc: Proc;
  #seen: Promise<readonly SeenPod[]> | undefined;

  constructor(procDir: string) {
    this.#proc = new Proc(procDir);
  }

  /** Those of the first look that are still there. @throws as `findResidents` */
  async all(): Promise<readonly Resident[]> {
    this.#seen ??= seenPods(this.#proc);
    return (await this.#seen).flatMap((pod) => this.#opened(pod) ?? []);
  }

  /** By uid, or container id where there is no uid; undefined when no process of it is there. @throws as `findResidents` */
  async of(id: string): Promise<Resident | undefined> {
    for (const anew of [false, true]) {
      if (anew || this.#seen === undefined) this.#seen = seenPods(this.#proc);
      const pod = (await this.#seen).find(({ podUid, containerId }) => (podUid ?? containerId) === id);
      const resident = pod === undefined ? undefined : this.#opened(pod);
      // It may have come, or have been started again, since all were looked for.
      if (resident !== undefined) return resident;
    }
    return undefined;
  }

  /** A process that lives in this netns, as the node's /proc names it. @throws as `findResidents` */
  async processIn(netns: NetnsId): Promise<string | undefined> {
    this.#seen ??= seenPods(this.#proc);
    const pids = (await this.#seen).find((pod) => pod.netns === netns)?.pids ?? [];
    return pids.find((pid) => {
      try {
        return this.#proc.netnsId(pid) === netns;
      } catch {
        return false;
      }
    });
  }

  /** Processes end while we look, and their numbers are used again. */
  #opened({ podUid, containerId, pids, netns: id }: SeenPod): Resident | undefined {
    for (const pid of pids) {
      try {
        const netns = openNetns(this.#proc.netnsPath(pid));
        if (netns.id === id) return { podUid, containerId, netns, pid };
        netns.close();
      } catch {
        // Gone: the next one may live.
      }
    }
    return undefined;
  }
}

async function seenPods(proc: Proc): Promise<readonly SeenPod[]> {
  const ancestors = ancestorsOf(proc);
  const { handle: host } = findHostNetns(proc, false);
  try {
    const found = await sightings(
      proc,
      ({ podUid, containerId }) => [podUid ?? CONTAINER + containerId],
      forbiddenIds(host, proc),
      ancestors,
    );
    return [...found].flatMap(([key, [oldest]]) => {
      if (oldest === undefined) return [];
      const isContainer = key.startsWith(CONTAINER);
      const containerId = isContainer ? key.slice(CONTAINER.length) : undefined;
      return [{ podUid: isContainer ? undefined : key, containerId, ...oldest }];
    });
  } finally {
    host.close();
  }
}
