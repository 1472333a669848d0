// SPDX-License-Identifier: Apache-2.0
// Redirection of sidecar pods.
import type { Redirection } from "../redirection.ts";
import type { EngineName, KernelFact } from "./dataplane.ts";
import type { NetnsHandle } from "./netns.ts";
import type { Proof } from "./proof.ts";

export interface RedirectedPod {
  readonly ips: readonly string[];
  readonly redirection: Redirection;
  readonly proxyUid: number;
}

export interface RedirectionObservation {
  /**
   * absent: nothing of it. redirected: ours, as it should be. foreign: somebody else's (upstream's plugin, or
   * an istio-init), which we leave as it is. differs: ours, but not as it should be.
   */
  readonly mode: "absent" | "redirected" | "foreign" | "differs";
  /** Who steers; of a foreign one, by what it is made of. */
  readonly engine: EngineName | undefined;
  /** Sentences, empty unless mode is `differs`. */
  readonly differences: readonly string[];
  /** The rules are whole, but were made for other settings of the pod, or by another version of ours: nobody's doing. */
  readonly outdated?: boolean;
}

export interface SidecarDataplane {
  /** Finds out in advance what works on this node, so that the first pod need not wait for it. Never rejects. */
  warm(): Promise<void>;
  /** Reads the kernel; no fork. */
  observe(netns: NetnsHandle, redirection: Redirection): RedirectionObservation;
  /**
   * Writes it with the best engine that works on this node, and verifies it by real connections; undone when
   * that fails. A redirection that is right, or foreign, stays as it is. `pod` is for messages.
   * @throws AgentError NO_ENGINE with every engine's reason.
   */
  redirect(netns: NetnsHandle, redirection: Redirection, pod: string): Promise<RedirectionObservation>;
  /** Everything of a pod's redirection, for people. Reads the kernel, no fork. */
  examine(netns: NetnsHandle, pod: RedirectedPod): readonly KernelFact[];
  /**
   * Real connections inside its netns show where its traffic lands, whoever has written the rules. Leaves
   * nothing behind. Rejects only when the netns can't be read.
   */
  prove(netns: NetnsHandle, pod: RedirectedPod): Promise<readonly Proof[]>;
  /** Removes everything of ours. Idempotent. */
  remove(netns: NetnsHandle, redirection: Redirection): Promise<void>;
}
