// SPDX-License-Identifier: Apache-2.0
import type { ZtunnelPeer } from "../../core/ports.ts";

/** One cgroup of the node's cgroup2 hierarchy. */
export interface Cgroup {
  /** As this process reaches it. */
  readonly path: string;
  /** Inode of the directory, which the kernel calls the cgroup's id. */
  readonly id: bigint;
}

/** The node's cgroup2 hierarchy, as far as the engine needs it. */
export interface Cgroups {
  /** The cgroup that all pods are in. */
  pods(): Cgroup;
  /** undefined: there is none of this id below the root, or it can't be found in time. */
  withId(id: bigint): Cgroup | undefined;
  /** The pod's cgroup for a container's, so that a container that is restarted in place stays below it. */
  podOf(cgroup: Cgroup): Cgroup;
  /** The cgroup of a ztunnel that has just connected. */
  ofPeer(peer: ZtunnelPeer): Cgroup | undefined;
  /** From the root down, without the cgroup itself. */
  ancestors(cgroup: Cgroup): Cgroup[];
}

/** True when `inner` is `outer` or below it. */
export function isWithin(inner: Cgroup, outer: Cgroup): boolean {
  return inner.path === outer.path || inner.path.startsWith(`${outer.path.replace(/\/$/, "")}/`);
}
