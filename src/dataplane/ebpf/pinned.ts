// SPDX-License-Identifier: Apache-2.0
import { join } from "node:path";
import { messageOf } from "../../core/errors.ts";
import type { NativeBinding } from "../../native/binding.ts";
import type { PinnedPod } from "../../native/bpf.ts";
import { HostMounts } from "../../sys/mounts.ts";
import { HOME, SCHEMA } from "./node.ts";

export interface Pinned {
  /** By netns cookie. */
  readonly pods: ReadonlyMap<bigint, PinnedPod>;
  /** Why they can't be read. */
  readonly obstacle: string | undefined;
}

/** What agents have pinned on the node, read without opening the engine: nothing is made or attached. */
export function readPinned(binding: NativeBinding, procDir: string): Pinned {
  const bpffs = new HostMounts(procDir).bpffs();
  if (bpffs.path === undefined) return { pods: new Map(), obstacle: bpffs.reason };
  try {
    const pods = binding.bpfPinned(join(bpffs.path, HOME, `v${SCHEMA}`));
    return { pods: new Map(pods.map((pod) => [pod.cookie, pod])), obstacle: undefined };
  } catch (error) {
    return { pods: new Map(), obstacle: messageOf(error) };
  }
}
