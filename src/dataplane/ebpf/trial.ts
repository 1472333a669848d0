// SPDX-License-Identifier: Apache-2.0
import { messageOf } from "../../core/errors.ts";
import type { EngineTest } from "../../core/ports/dataplane.ts";
import type { Logger } from "../../core/ports/telemetry.ts";
import type { NativeBinding } from "../../native/binding.ts";
import { createNetns } from "../../native/netns.ts";
import { HostMounts } from "../../sys/mounts.ts";
import { type Cgroups, NodeCgroups } from "./cgroups.ts";
import { EbpfEngine, type EbpfOptions } from "./engine.ts";
import { refuseOverride } from "./hooks.ts";
import { ownCgroup } from "./selftest.ts";

/**
 * The engine's self-test for who only looks: with a bpffs of its own, and hooks on our own cgroup in place of
 * the pods'. What is pinned on the node and what pods run stays as it is, and nothing is left.
 */
export async function tryEbpf(binding: NativeBinding, procDir: string, logger: Logger): Promise<EngineTest> {
  const mounts = new HostMounts(procDir);
  const bpffs = mounts.bpffs();
  const cgroup2 = mounts.cgroup2();
  const own = binding.bpffsCreate();
  const engine = new EbpfEngine({
    binding,
    logger,
    bpffs: bpffs.path === undefined ? { reason: bpffs.reason } : { path: `/proc/self/fd/${own}` },
    cgroups:
      cgroup2.path === undefined ? { reason: cgroup2.reason } : guests(binding, new NodeCgroups(cgroup2, procDir)),
  });
  try {
    return await engine.selfTest();
  } finally {
    engine.close();
    binding.close(own);
  }
}

/** Our own cgroup is where "pods" are; what would keep the real one's from being hooked is found out all the same. */
function guests(binding: NativeBinding, node: NodeCgroups): EbpfOptions["cgroups"] {
  try {
    refuseOverride(binding, node, node.pods());
    const netns = createNetns();
    try {
      const own = ownCgroup(binding, netns.fd, node);
      const cgroups: Cgroups = {
        root: () => node.root(),
        pods: () => own,
        ofProcess: (pid) => node.ofProcess(pid),
        withId: (id) => (id === own.id ? own : node.withId(id)),
        podOf: (cgroup) => cgroup,
        ofPeer: () => [],
        ancestors: (cgroup) => node.ancestors(cgroup),
      };
      return cgroups;
    } finally {
      netns.close();
    }
  } catch (error) {
    return { reason: messageOf(error) };
  }
}
