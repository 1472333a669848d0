// SPDX-License-Identifier: Apache-2.0
// Network namespaces of pods, found and held.
import type { Pod } from "../pod.ts";

export interface NetnsHandle extends Disposable {
  /** Throws after close. */
  readonly fd: number;
  readonly id: NetnsId;
  close(): void;
}

export type NetnsId = string;

export interface NetnsFinder {
  /**
   * One pass over /proc for all wanted pods. The caller owns the returned handles. A pod is absent
   * when none of its processes lives in a netns that carries one of its addresses.
   */
  find(pods: readonly Pod[]): Promise<Map<string, NetnsHandle>>;
  /**
   * Opens the netns path of a CNI request (a path of the host). `handed`: that netns as the plugin has opened it,
   * used in place of the path; this one owns it, also when it throws.
   * @throws AgentError when it is no netns, is the host's own, or lies outside the mounted paths.
   */
  open(hostPath: string, handed?: NetnsHandle): NetnsHandle;
  /** Which of these canonical addresses no interface of the netns has. */
  missing(netns: NetnsHandle, ips: readonly string[]): readonly string[];
  /** The host's own netns, for probe exemption; held for the life of the process. */
  host(): NetnsHandle;
  /**
   * Every netns that some process of the node lives in, the host's left out. One pass over /proc. @throws when a pod's
   * process can't be read.
   */
  inhabited(): Promise<ReadonlySet<NetnsId>>;
}
