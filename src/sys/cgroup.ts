// SPDX-License-Identifier: Apache-2.0
// The node's cgroup2 tree, as far as programs are attached to it.
import { type BigIntStats, type Dirent, readdirSync, readFileSync, statSync } from "node:fs";
import { AgentError } from "../core/errors.ts";

/** A cgroup: its directory, and the id by which the kernel names it (sock_diag, BPF). */
export interface Cgroup {
  readonly path: string;
  /** Inode number of the directory. */
  readonly id: bigint;
}

export interface PodsCgroup extends Cgroup {
  /** No cgroup of its own holds the pods: it is the root of the hierarchy. */
  readonly isRoot: boolean;
}

export interface WalkLimits {
  readonly maxDirectories?: number;
  readonly deadlineMs?: number;
}

const MAX_DIRECTORIES = 20_000;
const DEADLINE_MS = 1000;
const PODS_NAME = /^(?:kubelet-)?kubepods(?:\.slice)?$/;
/** kind starts kubelet with this --cgroup-root: the pods' cgroup is one level further down then. */
const KUBELET_NAME = /^kubelet(?:\.slice)?$/;
/** kubelet's cgroupfs driver writes `pod<uid>`, its systemd driver `kubepods-burstable-pod<uid_>.slice`. */
const POD_NAME = /^(?:.*-)?pod(?:[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})(?:\.slice)?$/;

/**
 * The cgroup2 hierarchy below `root` (HostMounts.cgroup2). Paths given and returned begin with `root`;
 * methods that take a path throw AgentError CGROUP_OUTSIDE for another one. Synchronous: a node with 250
 * pods and 750 containers takes some 30 ms to walk.
 */
export class CgroupHierarchy {
  constructor(readonly root: string) {}

  /** Id of the cgroup at a path. @throws the file system's error, ENOENT when it is gone. */
  idOf(path: string): bigint {
    return stat(path).ino;
  }

  /**
   * The cgroup that holds all pods: `kubepods` or `kubepods.slice`, also below kind's `kubelet`. The root
   * of the hierarchy when there is none, when there are several in use, or when pods are not in it: on
   * hosts with cgroup v1 beside v2, runtimes leave every container in the root of v2.
   */
  podsCgroup(): PodsCgroup {
    const found = [...this.#podsDirectories()];
    const used = found.filter((path) => populated(path));
    // Without controllers in v2, v1 has them and may have the pods: a tree without processes proves nothing.
    const candidates = used.length === 0 && this.#hasControllers() ? found : used;
    const [path = this.root] = candidates.length === 1 ? candidates : [];
    return { path, id: this.idOf(path), isRoot: path === this.root };
  }

  /**
   * Path of the cgroup with this id, or undefined when there is none or the limits end the search. Looks
   * below the pods' cgroup first.
   */
  pathOf(id: bigint, limits: WalkLimits = {}): string | undefined {
    const end = performance.now() + (limits.deadlineMs ?? DEADLINE_MS);
    let left = limits.maxDirectories ?? MAX_DIRECTORIES;
    const due = [...new Set([this.root, ...this.#podsDirectories()])];
    const seen = new Set<string>();
    for (let path = due.pop(); path !== undefined; path = due.pop()) {
      if (seen.has(path)) continue;
      seen.add(path);
      if (left-- <= 0 || performance.now() > end) return undefined;
      const status = statIfThere(path);
      if (status === undefined) continue;
      if (status.ino === id) return path;
      // kernfs counts: 2 links mean no sub-directory. Reading a leaf would cost ten times as much.
      if (status.nlink !== 2n) due.push(...children(path));
    }
    return undefined;
  }

  /**
   * The pod's cgroup around a container's, by kubelet's naming, so that a container restarted in place
   * stays below it; the given one when no ancestor is a pod's. The outermost counts: further in, a
   * container may make cgroups of its own.
   */
  podLevel(path: string): string {
    return [...this.ancestors(path), path].find((one) => one !== this.root && POD_NAME.test(nameOf(one))) ?? path;
  }

  /** The cgroups around this one, from the root of the hierarchy inwards; none for the root. */
  ancestors(path: string): string[] {
    const names = this.#names(path);
    return names.map((_name, depth) => [this.root, ...names.slice(0, depth)].join("/"));
  }

  /** True when `inner` is `outer` or below it. */
  contains(outer: string, inner: string): boolean {
    this.#names(outer);
    this.#names(inner);
    return inner === outer || inner.startsWith(`${outer}/`);
  }

  /** Depth below the root, which has 0. */
  level(path: string): number {
    return this.#names(path).length;
  }

  #names(path: string): string[] {
    if (path === this.root) return [];
    if (!path.startsWith(`${this.root}/`)) {
      throw new AgentError("CGROUP_OUTSIDE", `${path} is no cgroup below ${this.root}`);
    }
    return path.slice(this.root.length + 1).split("/");
  }

  *#podsDirectories(parent = this.root): Generator<string> {
    for (const path of children(parent)) {
      if (PODS_NAME.test(nameOf(path))) yield path;
      else if (parent === this.root && KUBELET_NAME.test(nameOf(path))) yield* this.#podsDirectories(path);
    }
  }

  #hasControllers(): boolean {
    return readFileSync(`${this.root}/cgroup.controllers`, "utf8").trim() !== "";
  }
}

function nameOf(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

/** True when the cgroup or one below it has a process. */
function populated(path: string): boolean {
  try {
    return /^populated 1$/m.test(readFileSync(`${path}/cgroup.events`, "utf8"));
  } catch {
    return false;
  }
}

/** Sub-directories; none when the cgroup has been removed meanwhile. */
function children(path: string): string[] {
  let entries: Dirent[];
  try {
    entries = readdirSync(path, { withFileTypes: true });
  } catch {
    return [];
  }
  return entries.filter((entry) => entry.isDirectory()).map(({ name }) => `${path}/${name}`);
}

function stat(path: string): BigIntStats {
  return statSync(path, { bigint: true });
}

function statIfThere(path: string): BigIntStats | undefined {
  try {
    return stat(path);
  } catch {
    return undefined;
  }
}
