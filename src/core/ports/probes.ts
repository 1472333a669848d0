// SPDX-License-Identifier: Apache-2.0
// The host's side: kubelet's probes reach pods directly.
import type { EngineName } from "./dataplane.ts";
import type { NetnsHandle } from "./netns.ts";
import type { PlannedChange } from "./plan.ts";

export interface ExemptPod {
  readonly uid: string;
  readonly ips: readonly string[];
  /** The one that captures it, or will. */
  readonly engine: EngineName;
}

export interface ProbeHeir extends ExemptPod {
  readonly seconds?: number;
}

export interface ProbeExemption {
  /** Creates what is missing, flushes nothing, begins to watch for removal by other tools. */
  start(): Promise<void>;
  /** What `allow` would change on the host. Reads the kernel. */
  plan(pod: ExemptPod): readonly PlannedChange[];
  /** Before capture. Idempotent. Calls made close together share one transaction. */
  allow(pod: ExemptPod): Promise<void>;
  /** After capture, in the same way: what only the captured pod can show is found out with it. */
  settle(pod: ExemptPod, netns: NetnsHandle): Promise<void>;
  /** Removes only entries that belong to this uid: a recycled address stays with its new owner. */
  revoke(uid: string, ips: readonly string[]): Promise<void>;
  /** Removes entries of ours that belong to no pod in `owners`, adds missing ones. */
  reconcile(owners: ReadonlyMap<string, ExemptPod & { readonly netns: NetnsHandle }>): Promise<void>;
  /** Stops watching; everything stays for the next agent. */
  stop(): Promise<void>;
  /**
   * As stop, for an agent that no other one of ours follows: from now on probes reach exactly these pods, without
   * any agent's help. Without pods nothing of ours is left on the host.
   */
  bequeath(heirs: readonly ProbeHeir[]): Promise<void>;
}
