// SPDX-License-Identifier: Apache-2.0
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { codeOf } from "../core/errors.ts";

/** Where cgroup v2 is mounted: the root on unified hosts, a sub-directory on hybrid ones. */
export function cgroup2Root(): string {
  for (const line of readFileSync("/proc/self/mountinfo", "utf8").split("\n")) {
    const [before = "", after = ""] = line.split(" - ");
    if (after.startsWith("cgroup2 ")) return before.split(" ")[4] ?? "/sys/fs/cgroup";
  }
  throw new Error("no cgroup2 file system is mounted");
}

/** A cgroup v1 hierarchy of a hybrid host. */
export interface Hierarchy {
  /** Where the machine has mounted it. */
  readonly point: string;
  /** What mounts it again elsewhere: `cpu,cpuacct`, or `none,name=systemd`. */
  readonly options: string;
}

/** The v1 hierarchies beside v2; none on unified hosts. */
export function cgroup1Hierarchies(): Hierarchy[] {
  return readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .flatMap((line) => {
      const [before = "", after = ""] = line.split(" - ");
      const [type, , options = ""] = after.split(" ");
      if (type !== "cgroup") return [];
      const which = options
        .split(",")
        .filter((option) => !/^(rw|ro|xattr|clone_children|release_agent=.*)$/.test(option));
      const named = which.some((option) => option.startsWith("name="));
      return [{ point: before.split(" ")[4] ?? "", options: [...(named ? ["none"] : []), ...which].join() }];
    });
}

/** A part of the cgroup v2 tree, laid out below as kubelet lays out its pods. */
export class CgroupTree {
  /** On the machine; a node that begins here has it as the root of its own hierarchy. */
  readonly root: string;
  /** The same in each v1 hierarchy. */
  private readonly others: readonly string[];
  private removed = false;

  constructor(name: string, hierarchies: readonly Hierarchy[] = []) {
    this.root = join(cgroup2Root(), name);
    this.others = hierarchies.map(({ point }) => join(point, name));
  }

  /** Names of the cgroups next to ours. */
  static names(): string[] {
    return readdirSync(cgroup2Root());
  }

  create(): void {
    this.make(this.root);
    for (const path of this.others) inheritCpuset(path);
  }

  /** A cgroup of the node's own processes. */
  system(name: string): string {
    return this.make(join(this.root, "system", name));
  }

  /** The cgroup at `path` (of v2) and those of the same name in the v1 hierarchies. */
  everywhere(path: string): string[] {
    return [path, ...this.others.map((other) => join(other, relative(this.root, path)))];
  }

  /** Makes a container's cgroup, `kubepods/<qos>/pod<uid>/<container id>`, and returns its path. */
  container(podUid: string, containerId: string): string {
    const path = join(this.root, "kubepods", "besteffort", `pod${podUid}`, containerId);
    return this.make(path);
  }

  /** Moves a process; it must be seen by our pid namespace. */
  static join(path: string, pid: number): void {
    writeFileSync(join(path, "cgroup.procs"), String(pid));
  }

  /** Removes a pod's cgroups once its processes are gone. */
  async removePod(podUid: string): Promise<void> {
    for (const qos of ["besteffort", "burstable"]) {
      for (const path of this.everywhere(join(this.root, "kubepods", qos, `pod${podUid}`))) await removeTree(path);
    }
  }

  /** Whether processes are in it, of whatever pid namespace. */
  populated(): boolean {
    const events = join(this.root, "cgroup.events");
    return existsSync(events) && /^populated 1$/m.test(readFileSync(events, "utf8"));
  }

  /** Removes the whole tree. Processes must be gone or going: an occupied cgroup is retried for a second. */
  async remove(): Promise<void> {
    this.removed = true;
    for (const path of this.everywhere(this.root)) await removeTree(path);
  }

  /** The same tree wherever it may be: for one that an earlier process left. */
  static ofAnyNode(name: string): CgroupTree {
    return new CgroupTree(name, cgroup1Hierarchies());
  }

  /** Whoever still works while the sandbox is taken down must not bring it back. */
  private make(path: string): string {
    if (this.removed) throw new Error("the sandbox is being removed");
    for (const each of this.everywhere(path)) mkdirSync(each, { recursive: true });
    return path;
  }
}

/** A new cpuset has no CPU, and takes no process, until it is given some; with the flag its children get the same. */
function inheritCpuset(path: string): void {
  if (!existsSync(join(path, "cpuset.cpus"))) return;
  for (const file of ["cpuset.cpus", "cpuset.mems"]) {
    writeFileSync(join(path, file), readFileSync(join(dirname(path), file)));
  }
  writeFileSync(join(path, "cgroup.clone_children"), "1");
}

/** What is gone already is no error: of a stale tree, several may be taking it away at once. */
async function removeTree(path: string): Promise<void> {
  for (const name of subdirectories(path)) await removeTree(join(path, name));
  for (let attempt = 0; ; attempt++) {
    try {
      rmdirSync(path);
      return;
    } catch (error) {
      if (codeOf(error) === "ENOENT") return;
      // EBUSY until the kernel has reaped the last process.
      if (attempt >= 50) throw error;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

function subdirectories(path: string): readonly string[] {
  try {
    return readdirSync(path, { withFileTypes: true }).flatMap((entry) => (entry.isDirectory() ? [entry.name] : []));
  } catch (error) {
    // Below a cgroup that ends, its own files vanish first.
    if (codeOf(error) === "ENOENT" || codeOf(error) === "ENODEV") return [];
    throw error;
  }
}
