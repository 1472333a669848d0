// SPDX-License-Identifier: Apache-2.0
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** Where cgroup v2 is mounted: the root on unified hosts, a sub-directory on hybrid ones. */
export function cgroup2Root(): string {
  for (const line of readFileSync("/proc/self/mountinfo", "utf8").split("\n")) {
    const [before = "", after = ""] = line.split(" - ");
    if (after.startsWith("cgroup2 ")) return before.split(" ")[4] ?? "/sys/fs/cgroup";
  }
  throw new Error("no cgroup2 file system is mounted");
}

/** A part of the cgroup v2 tree, laid out below as kubelet lays out its pods. */
export class CgroupTree {
  /** On the machine; a node that begins here has it as the root of its own hierarchy. */
  readonly root: string;
  private removed = false;

  constructor(name: string) {
    this.root = join(cgroup2Root(), name);
  }

  /** Names of the cgroups next to ours. */
  static names(): string[] {
    return readdirSync(cgroup2Root());
  }

  create(): void {
    this.make(this.root);
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
    await removeTree(join(this.root, "kubepods", "besteffort", `pod${podUid}`));
  }

  /** Removes the whole tree. Processes must be gone or going: an occupied cgroup is retried for a second. */
  async remove(): Promise<void> {
    this.removed = true;
    await removeTree(this.root);
  }

  /** Whoever still works while the sandbox is taken down must not bring it back. */
  private make(path: string): string {
    if (this.removed) throw new Error("the sandbox is being removed");
    mkdirSync(path, { recursive: true });
    return path;
  }
}

async function removeTree(path: string): Promise<void> {
  if (!existsSync(path)) return;
  for (const entry of readdirSync(path, { withFileTypes: true })) {
    if (entry.isDirectory()) await removeTree(join(path, entry.name));
  }
  for (let attempt = 0; ; attempt++) {
    try {
      rmdirSync(path);
      return;
    } catch (error) {
      // EBUSY until the kernel has reaped the last process.
      if (attempt >= 50) throw error;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}
