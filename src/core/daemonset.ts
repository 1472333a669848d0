// SPDX-License-Identifier: Apache-2.0
// What the agent needs to know of the DaemonSet that runs it, and of its own pod.
import type { Placement } from "./placement.ts";

export interface ContainerImage {
  readonly name: string;
  readonly image: string;
}

export interface DaemonSet {
  readonly uid: string;
  /** deletionTimestamp is set. */
  readonly deleting: boolean;
  /** Counts changes of the template; pods made from it carry the number as a label. */
  readonly templateGeneration: string | undefined;
  readonly containers: readonly ContainerImage[];
  readonly placement: Placement;
}

/** The agent's own pod. */
export interface AgentPod {
  readonly uid: string;
  readonly nodeName: string;
  readonly containers: readonly ContainerImage[];
  /** Controller among the ownerReferences. */
  readonly owner: { readonly kind: string; readonly group: string; readonly name: string } | undefined;
  readonly templateGeneration: string | undefined;
  /** How long kubelet waits between SIGTERM and SIGKILL, in s. */
  readonly graceSeconds: number | undefined;
}

/** Who has the pods of this node once this agent has ended. */
export type Successor =
  /** An agent of ours, after an upgrade or a restart; or nobody can tell. Nothing is taken away. */
  | "same"
  /** Nobody: the DaemonSet is gone, or this node is none of its nodes any more. */
  | "none"
  /** The DaemonSet runs another image from now on. */
  | "other";

export interface Succession {
  readonly successor: Successor;
  /** A sentence for the log. */
  readonly reason: string;
}
