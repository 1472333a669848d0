// SPDX-License-Identifier: Apache-2.0
// What the agent answers to the CNI plugin.
import type { NetnsHandle } from "./netns.ts";

export interface CniPodRequest {
  readonly containerId: string;
  /** Host path; empty for upstream's protocol on DEL. */
  readonly netns: string;
  readonly ifName: string;
  readonly podNamespace: string;
  readonly podName: string;
  /** Absent from upstream's protocol and old runtimes. */
  readonly podUid: string | undefined;
  /** Canonical addresses of prevResult. */
  readonly ips: readonly string[];
  /** The pod's netns as the plugin has opened it, where it was asked to; whoever takes it owns it. */
  readonly takeNetns?: () => NetnsHandle | undefined;
  /** Told one of UNREACHED_NETNS, the plugin comes again with the netns. */
  readonly mayHandOver?: boolean;
}

/** Codes of a path that the node has and the agent does not see, or may not follow. */
export const UNREACHED_NETNS: ReadonlySet<string> = new Set([
  "NETNS_NOT_FOUND",
  "NETNS_UNREADABLE",
  "NETNS_PATH_INVALID",
]);

export type CniVerdict = "ambient" | "sidecar" | "none";

export interface CniHandler {
  add(request: CniPodRequest, signal: AbortSignal): Promise<CniVerdict>;
  /** CHECK: rejects only when the pod is known to be in the mesh and is not captured. */
  check(request: CniPodRequest, signal: AbortSignal): Promise<void>;
}
