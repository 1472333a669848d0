// SPDX-License-Identifier: Apache-2.0
import { HostMounts } from "../../sys/mounts.ts";
import { NodeCgroups } from "./cgroups.ts";
import type { EbpfOptions } from "./engine.ts";

/** What of the node the engine needs, as the node's /proc leads there; or why it can't be had. */
export function ebpfHost(procDir: string): Pick<EbpfOptions, "bpffs" | "cgroups"> {
  const mounts = new HostMounts(procDir);
  const bpffs = mounts.bpffs();
  const cgroup2 = mounts.cgroup2();
  return {
    bpffs: bpffs.path === undefined ? { reason: bpffs.reason } : { path: bpffs.path },
    cgroups: cgroup2.path === undefined ? { reason: cgroup2.reason } : new NodeCgroups(cgroup2, procDir),
  };
}
