// SPDX-License-Identifier: Apache-2.0
import { join } from "node:path";
import { messageOf } from "../../core/errors.ts";
import type { Logger } from "../../core/ports/telemetry.ts";
import type { NativeBinding } from "../../native/binding.ts";
import { HostMounts } from "../../sys/mounts.ts";
import { NodeCgroups } from "./cgroups.ts";
import type { EbpfOptions } from "./engine.ts";

export interface EbpfHostOptions {
  readonly binding: NativeBinding;
  /** The node's proc. */
  readonly procDir: string;
  readonly logger: Logger;
}

/** What of the node the engine needs, as the node's /proc leads there; or why it can't be had. */
export function ebpfHost(options: EbpfHostOptions): Pick<EbpfOptions, "bpffs" | "cgroups"> {
  const cgroup2 = new HostMounts(options.procDir).cgroup2();
  return {
    bpffs: bpffsOf(options),
    cgroups: cgroup2.path === undefined ? { reason: cgroup2.reason } : new NodeCgroups(cgroup2, options.procDir),
  };
}

/**
 * The node's bpffs. Where none is mounted, as on kind, it is mounted in the mount namespace of the node's
 * first process, if we may; it stays there, as the one that systemd mounts does.
 */
function bpffsOf({ binding, procDir, logger }: EbpfHostOptions): EbpfOptions["bpffs"] {
  const mounts = new HostMounts(procDir);
  const found = mounts.bpffs();
  if (found.path !== undefined) return { path: found.path };
  try {
    if (binding.mountBpffs(join(procDir, "1/ns/mnt"))) logger.info("a bpffs was mounted at the node's /sys/fs/bpf");
  } catch (error) {
    return { reason: `${found.reason}; ${messageOf(error)}` };
  }
  const mounted = mounts.bpffs();
  return mounted.path === undefined ? { reason: mounted.reason } : { path: mounted.path };
}
