// SPDX-License-Identifier: Apache-2.0
// A bpffs and cgroups of a test's own, so that an eBPF engine under test shares nothing with another one.
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, openSync, rmdirSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ZtunnelPeer } from "../../src/core/ports/ztunnel.ts";
import type { Cgroups } from "../../src/dataplane/ebpf/cgroups.ts";
import { EbpfEngine } from "../../src/dataplane/ebpf/engine.ts";
import type { NativeBinding } from "../../src/native/binding.ts";
import { native } from "../../src/native/load.ts";
import type { Cgroup } from "../../src/sys/cgroup.ts";
import { quiet } from "./lab-dataplane.ts";

let mounted: string | undefined;

/**
 * A bpffs that only this process holds: its mount point is gone again at once, and it ends with the
 * process, however that ends. Other processes reach it by the same path while this one lives.
 */
export function labBpffs(): string {
  if (mounted !== undefined) return mounted;
  const dir = mkdtempSync(join(tmpdir(), "ambient-cni-bpf-"));
  execFileSync("mount", ["-t", "bpf", "bpf", dir]);
  const fd = openSync(dir, "r");
  execFileSync("umount", ["--lazy", dir]);
  rmdirSync(dir);
  mounted = `/proc/${process.pid}/fd/${fd}`;
  return mounted;
}

/** An engine with this process's bpffs; by default every pod and every ztunnel is in the root cgroup. */
export function labEbpf(
  binding: NativeBinding = native(),
  cgroups: Cgroups = new LabCgroups(),
  bpffs: string = labBpffs(),
): EbpfEngine {
  return new EbpfEngine({ binding, logger: quiet, bpffs: { path: bpffs }, cgroups });
}

/** All pods in one cgroup, by default the root of the hierarchy, as on a hybrid host. */
export class LabCgroups implements Cgroups {
  static readonly root: Cgroup = cgroupAt(rootPath());

  constructor(
    private readonly podsIn: Cgroup = LabCgroups.root,
    private readonly ztunnelIn: Cgroup = LabCgroups.root,
  ) {}

  root(): Cgroup {
    return LabCgroups.root;
  }
  ofProcess(_pid: number): Cgroup | undefined {
    return LabCgroups.root;
  }
  pods(): Cgroup {
    return this.podsIn;
  }
  withId(id: bigint): Cgroup | undefined {
    return [LabCgroups.root, this.podsIn, this.ztunnelIn].find((cgroup) => cgroup.id === id);
  }
  podOf(cgroup: Cgroup): Cgroup {
    return cgroup;
  }
  ofPeer(_peer: ZtunnelPeer): Cgroup[] {
    return [this.ztunnelIn];
  }
  ancestors({ path }: Cgroup): Cgroup[] {
    const above: Cgroup[] = [];
    for (let at = join(path, ".."); at.startsWith(LabCgroups.root.path); at = join(at, ".."))
      above.unshift(cgroupAt(at));
    return above;
  }
}

export function cgroupAt(path: string): Cgroup {
  return { path, id: statSync(path, { bigint: true }).ino };
}

/** A new cgroup below the root; remove it with rmdir once it is empty. */
export function makeCgroup(name: string): Cgroup {
  const path = join(LabCgroups.root.path, `ambient-cni-test-${process.pid}-${name}`);
  mkdirSync(path);
  return cgroupAt(path);
}

function rootPath(): string {
  for (const path of ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]) {
    try {
      if (statSync(join(path, "cgroup.controllers")).isFile()) return path;
    } catch {
      // Not there: the other one.
    }
  }
  throw new Error("no cgroup2 is mounted");
}

let homes = 0;

/** A directory of `labBpffs` of a test's own, for an agent that finds nothing there. Remove it with `bpfRemove`. */
export function freshBpffs(): string {
  const dir = join(labBpffs(), `home${++homes}`);
  mkdirSync(dir);
  return dir;
}
