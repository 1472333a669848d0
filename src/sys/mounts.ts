// SPDX-License-Identifier: Apache-2.0
// By which path this process reaches the node's cgroup2 hierarchy and its bpffs, which the stock chart
// mounts nowhere in the agent's container.
import { readFileSync, statfsSync, statSync } from "node:fs";
import { codeOf } from "../core/errors.ts";
import { type Mount, parseMountinfo } from "./mountinfo.ts";
import { Proc } from "./proc.ts";

/** include/uapi/linux/magic.h */
export const CGROUP2_SUPER_MAGIC = 0x6367_7270;
const BPF_FS_MAGIC = 0xcafe_4a11;
/** kernfs numbers the root of the one cgroup2 hierarchy of a kernel so; a cgroup namespace's root has another. */
const CGROUP2_ROOT_INODE = 1n;
const BPFFS = "/sys/fs/bpf";

/** A mount of the node and the way there, or why there is none. */
export type HostMount = FoundMount | { readonly path: undefined; readonly reason: string };

export interface FoundMount {
  readonly path: string;
  readonly reason: undefined;
  /** Mount.root: where a cgroup2 mount begins as seen from our cgroup namespace. */
  readonly root: string;
}

/** A mount namespace and the prefix under which its root directory is reached. */
interface View {
  /** Empty: our own. */
  readonly prefix: string;
  readonly mounts: readonly Mount[];
}

/**
 * The node's file systems as seen through its /proc: `<procDir>/1/root/...`, which needs CAP_SYS_PTRACE.
 * Everything is read anew by each call: a mount may come later.
 */
export class HostMounts {
  readonly #proc: Proc;

  constructor(procDir: string) {
    this.#proc = new Proc(procDir);
  }

  /** Root of the cgroup2 hierarchy as the node's first process has it. */
  cgroup2(): HostMount {
    return this.#find("cgroup2 hierarchy", CGROUP2_SUPER_MAGIC, cgroupRoots);
  }

  /** The bpffs at /sys/fs/bpf. */
  bpffs(): HostMount {
    return this.#find("bpffs", BPF_FS_MAGIC, bpfRoots);
  }

  #find(what: string, magic: number, candidates: (mounts: readonly Mount[]) => readonly Mount[]): HostMount {
    const failures: string[] = [];
    const listed: Mount[] = [];
    for (const { prefix, mounts } of this.#views(failures, listed)) {
      const found = candidates(uncovered(mounts));
      if (found.length === 0) failures.push(`${prefix === "" ? "our own view" : prefix}: none is mounted`);
      for (const mount of found) {
        const path = prefix + mount.point;
        const obstacle = typeObstacle(path, magic) ?? (prefix === "" ? this.#strange(mount, listed) : undefined);
        if (obstacle === undefined) return { path, root: mount.root, reason: undefined };
        failures.push(`${path}: ${obstacle}`);
      }
    }
    return { path: undefined, reason: `the node's ${what} can't be reached: ${failures.join("; ")}` };
  }

  /**
   * Pid 1's view; where pid 1 is more privileged than we are, that of a kernel thread, which never left
   * the first mount namespace; last our own. `listed` gets what the node's processes have mounted, which
   * can be read also where their files can't be reached.
   */
  *#views(failures: string[], listed: Mount[]): Generator<View> {
    const { dir } = this.#proc;
    for (const pid of this.#elders()) {
      const prefix = `${dir}/${pid}/root`;
      try {
        const mounts = parseMountinfo(readFileSync(`${dir}/${pid}/mountinfo`, "utf8"));
        listed.push(...mounts);
        statSync(`${prefix}/`);
        yield { prefix, mounts };
      } catch (error) {
        failures.push(`${prefix}: ${codeOf(error)}`);
      }
    }
    yield { prefix: "", mounts: parseMountinfo(readFileSync("/proc/self/mountinfo", "utf8")) };
  }

  *#elders(): Generator<string> {
    yield "1";
    try {
      const thread = this.#proc.pids().find((pid) => isKernelThread(this.#proc, pid));
      if (thread !== undefined) yield thread;
    } catch {
      // The proc itself can't be read: pid 1 has said so.
    }
  }

  /**
   * Why a mount of our own may not be the node's: we may be a container. A bpffs that a container mounts
   * for itself dies with it, and its cgroup2 mount shows its own part of the tree only.
   */
  #strange({ device, root, type, point }: Mount, listed: readonly Mount[]): string | undefined {
    if (listed.some((mount) => mount.type === type && mount.device === device && mount.root === root)) return undefined;
    const whole = type === "cgroup2" && statSync(point, { bigint: true }).ino === CGROUP2_ROOT_INODE;
    return whole && this.#proc.dir === "/proc" ? undefined : "not the node's";
  }
}

function isKernelThread(proc: Proc, pid: string): boolean {
  try {
    return proc.stat(pid).kernelThread;
  } catch {
    return false;
  }
}

/** Of mounts at one point the last is the one that is seen. */
function uncovered(mounts: readonly Mount[]): Mount[] {
  return [...new Map(mounts.map((mount) => [mount.point, mount])).values()];
}

/** Why this is no mount of that type, or undefined. */
function typeObstacle(path: string, magic: number): string | undefined {
  try {
    return statfsSync(path).type === magic ? undefined : "something else is mounted over it";
  } catch (error) {
    return codeOf(error);
  }
}

/**
 * The mount nearest to the hierarchy's root first. Its root field can't be compared with "/": it is
 * relative to our cgroup namespace (`/../../..` from inside a container, `/docker/ID` from outside a
 * node that is one). Names in it lead down, each `..` up.
 */
function cgroupRoots(mounts: readonly Mount[]): Mount[] {
  return mounts
    .filter(({ type }) => type === "cgroup2")
    .map((mount) => {
      const parts = mount.root.split("/").filter((part) => part !== "");
      const ups = parts.filter((part) => part === "..").length;
      return { mount, names: parts.length - ups, ups };
    })
    .sort((a, b) => a.names - b.names || b.ups - a.ups || a.mount.point.length - b.mount.point.length)
    .map(({ mount }) => mount);
}

/** Only there: another tool's bpffs would be gone when that tool wants it to be, and capture with it. */
function bpfRoots(mounts: readonly Mount[]): Mount[] {
  return mounts.filter(({ type, root, point }) => type === "bpf" && root === "/" && point === BPFFS);
}
