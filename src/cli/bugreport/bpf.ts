// SPDX-License-Identifier: Apache-2.0
import { join } from "node:path";
import { messageOf } from "../../core/errors.ts";
import { OUTBOUND_PROGRAMS } from "../../dataplane/ebpf/hooks.ts";
import { HOME, KNOBS } from "../../dataplane/ebpf/node.ts";
import { readPinned } from "../../dataplane/ebpf/pinned.ts";
import { HostMounts } from "../../sys/mounts.ts";
import { listing } from "../../sys/node-facts.ts";
import type { NodeView } from "../source/kernel/node-view.ts";

/** Where the hooks for pods may be, below the hierarchy's root. */
const CGROUPS = ["/", "/kubepods", "/kubepods.slice", "/kubelet.slice"] as const;
const PINS_DEPTH = 4;

/** What the eBPF engine has on the node, decoded, and read without opening the engine. */
export function bpfDump({ binding, config }: NodeView): Readonly<Record<string, unknown>> {
  const mounts = new HostMounts(config.procDir);
  const [bpffs, cgroup] = [mounts.bpffs(), mounts.cgroup2()];
  const { pods, obstacle } = readPinned(binding, config.procDir);
  return {
    versions: binding.bpfVersions(KNOBS),
    bpffs,
    cgroup,
    pins: bpffs.path === undefined ? [] : attempt(() => listing(join(`${bpffs.path}`, HOME), PINS_DEPTH)),
    pods: [...pods.values()],
    obstacle: obstacle ?? null,
    hooks:
      cgroup.path === undefined
        ? {}
        : Object.fromEntries(
            CGROUPS.map((below) => [
              below,
              Object.fromEntries(
                OUTBOUND_PROGRAMS.map((name) => [
                  name,
                  attempt(() => binding.bpfCgroupFlags(join(`${cgroup.path}`, below), name)),
                ]),
              ),
            ]),
          ),
  };
}

function attempt<T>(look: () => T): T | string {
  try {
    return look();
  } catch (error) {
    return `? ${messageOf(error)}`;
  }
}
