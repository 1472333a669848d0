// SPDX-License-Identifier: Apache-2.0
// The kernel shows cgroup paths relative to the cgroup namespace of whoever reads them, and a container
// usually has one of its own.
import { readFileSync, statfsSync, statSync } from "node:fs";
import type { CgroupHierarchy } from "./cgroup.ts";
import { parseMountinfo } from "./mountinfo.ts";
import { CGROUP2_SUPER_MAGIC, type FoundMount } from "./mounts.ts";
import type { Proc } from "./proc.ts";

/** A path as the kernel shows it: so many levels up from our namespace's root, then down by names. */
interface Shown {
  readonly ups: number;
  readonly names: readonly string[];
}

/** Finds processes' cgroups in a hierarchy, whatever cgroup namespace we are in. */
export class CgroupVantage {
  readonly #hierarchy: CgroupHierarchy;
  readonly #begins: Shown;
  readonly #ownRootId: () => bigint | undefined;

  /** `mount`: that of the hierarchy. `ownRootId`: id of the cgroup at which our namespace begins. */
  constructor(hierarchy: CgroupHierarchy, mount: Pick<FoundMount, "root">, ownRootId = ownNamespaceRootId) {
    this.#hierarchy = hierarchy;
    this.#begins = parse(mount.root);
    this.#ownRootId = ownRootId;
  }

  /**
   * The cgroup of a process of the node's /proc, as a path of the hierarchy. Undefined when the process
   * is gone, is outside the hierarchy, or can't be placed from here. A guess is never given.
   */
  ofProcess(proc: Proc, pid: number): string | undefined {
    let text: string;
    try {
      text = proc.cgroup(String(pid));
    } catch {
      return undefined;
    }
    const path = /^0::(\/.*)$/m.exec(text)?.[1];
    // The kernel appends this to a removed cgroup's path, where its last process still ends.
    return path === undefined || path.endsWith(" (deleted)") ? undefined : this.locate(path);
  }

  /** Path in the hierarchy of a cgroup that the kernel shows us as `shown`. */
  locate(shown: string): string | undefined {
    const { ups, names } = parse(shown);
    const begins = this.#begins;
    // Our namespace begins above the hierarchy (the node is a container, we are outside): strip the way down.
    if (begins.names.length > 0) {
      const below = ups === begins.ups && begins.names.every((name, index) => names[index] === name);
      return below ? this.#join(this.#hierarchy.root, names.slice(begins.names.length)) : undefined;
    }
    if (ups > begins.ups) return undefined;
    if (ups === begins.ups) return this.#join(this.#hierarchy.root, names);
    // It shares ancestors with our namespace's root that the kernel does not name.
    const own = this.#ownRoot();
    const base = own === undefined ? undefined : [...this.#hierarchy.ancestors(own), own].at(-1 - ups);
    return base === undefined ? undefined : this.#join(base, names);
  }

  /** The cgroup at which our namespace begins. Found by its id: nothing tells its name from inside. */
  #ownRoot(): string | undefined {
    const id = this.#ownRootId();
    return id === undefined ? undefined : this.#hierarchy.pathOf(id);
  }

  #join(base: string, names: readonly string[]): string | undefined {
    const path = [base, ...names].join("/");
    try {
      this.#hierarchy.idOf(path);
      return path;
    } catch {
      return undefined;
    }
  }
}

function parse(path: string): Shown {
  const parts = path.split("/").filter((part) => part !== "");
  const names = parts.filter((part) => part !== "..");
  return { ups: parts.length - names.length, names };
}

/** A container's cgroup2 mount begins where its cgroup namespace does. */
function ownNamespaceRootId(): bigint | undefined {
  for (const { type, root, point } of parseMountinfo(readFileSync("/proc/self/mountinfo", "utf8"))) {
    if (type !== "cgroup2" || root !== "/") continue;
    try {
      if (statfsSync(point).type === CGROUP2_SUPER_MAGIC) return statSync(point, { bigint: true }).ino;
    } catch {
      // Covered by another mount, or out of reach.
    }
  }
  return undefined;
}
