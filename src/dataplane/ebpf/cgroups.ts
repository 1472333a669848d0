// SPDX-License-Identifier: Apache-2.0
import type { ZtunnelPeer } from "../../core/ports/ztunnel.ts";
import { type Cgroup, CgroupHierarchy } from "../../sys/cgroup.ts";
import { CgroupVantage } from "../../sys/cgroup-vantage.ts";
import type { FoundMount } from "../../sys/mounts.ts";
import { hostPidOf, ztunnelPids } from "../../sys/peer.ts";
import { Proc } from "../../sys/proc.ts";

/** The node's cgroup2 hierarchy, as far as the engine needs it. */
export interface Cgroups {
  root(): Cgroup;
  /** The cgroup that all pods are in. */
  pods(): Cgroup;
  /** The cgroup of a process of the node's /proc. */
  ofProcess(pid: number): Cgroup | undefined;
  /** undefined: there is none of this id below the root, or it can't be found in time. */
  withId(id: bigint): Cgroup | undefined;
  /** The pod's cgroup for a container's, so that a container that is restarted in place stays below it. */
  podOf(cgroup: Cgroup): Cgroup;
  /** Cgroups that a ztunnel that has just connected may be in; none when that can't be told. */
  ofPeer(peer: ZtunnelPeer): readonly Cgroup[];
  /** From the root down, without the cgroup itself. */
  ancestors(cgroup: Cgroup): readonly Cgroup[];
}

/** True when `inner` is `outer` or below it. */
export function isWithin(inner: Cgroup, outer: Cgroup): boolean {
  return inner.path === outer.path || inner.path.startsWith(`${outer.path}/`);
}

/** How long (ms) the pods' cgroup is taken for unchanged: many pods are looked at in a row. */
const PODS_FRESH_MS = 200;

/** The hierarchy of the node that `procDir` shows. */
export class NodeCgroups implements Cgroups {
  readonly #hierarchy: CgroupHierarchy;
  readonly #vantage: CgroupVantage;
  readonly #proc: Proc;
  #pods: { readonly cgroup: Cgroup; readonly at: number } | undefined;

  constructor(
    mount: FoundMount,
    private readonly procDir: string,
  ) {
    this.#hierarchy = new CgroupHierarchy(mount.path);
    this.#vantage = new CgroupVantage(this.#hierarchy, mount);
    this.#proc = new Proc(procDir);
  }

  root(): Cgroup {
    return this.#at(this.#hierarchy.root);
  }

  ofProcess(pid: number): Cgroup | undefined {
    return this.#ofProcess(this.#proc, pid)[0];
  }

  pods(): Cgroup {
    const now = performance.now();
    if (this.#pods === undefined || now - this.#pods.at > PODS_FRESH_MS) {
      this.#pods = { cgroup: this.#hierarchy.podsCgroup(), at: now };
    }
    return this.#pods.cgroup;
  }

  withId(id: bigint): Cgroup | undefined {
    const path = this.#hierarchy.pathOf(id);
    return path === undefined ? undefined : { path, id };
  }

  podOf(cgroup: Cgroup): Cgroup {
    return this.#at(this.#hierarchy.podLevel(cgroup.path));
  }

  ofPeer({ pid, pidfd }: ZtunnelPeer): readonly Cgroup[] {
    if (pidfd >= 0) return this.#ofProcess(this.#proc, hostPidOf(pidfd, this.procDir));
    if (pid > 0) return this.#ofProcess(new Proc("/proc"), pid);
    return ztunnelPids(this.#proc).flatMap((candidate) => this.#ofProcess(this.#proc, candidate));
  }

  ancestors(cgroup: Cgroup): readonly Cgroup[] {
    return this.#hierarchy.ancestors(cgroup.path).map((path) => this.#at(path));
  }

  #ofProcess(proc: Proc, pid: number | undefined): Cgroup[] {
    const path = pid === undefined ? undefined : this.#vantage.ofProcess(proc, pid);
    return path === undefined ? [] : [this.#at(path)];
  }

  #at(path: string): Cgroup {
    return { path, id: this.#hierarchy.idOf(path) };
  }
}
