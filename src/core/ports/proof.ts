// SPDX-License-Identifier: Apache-2.0
// Proofs of where a pod's traffic lands.
import type { CaptureSpec } from "./dataplane.ts";
import type { NetnsHandle } from "./netns.ts";

export type ProofRow =
  /** Outbound TCP is answered by ztunnel, and `getpeername` shows who was asked for. */
  | "outbound"
  /** A remote's connection to the pod is answered by ztunnel. */
  | "inbound"
  /** A remote's connection to 15008 is ztunnel's, at the pod's own address. */
  | "hbone"
  /** A connection of the node's (kubelet's probe) reaches the application directly. */
  | "probe"
  /** The pod reaches itself, at its own address and over loopback. */
  | "itself"
  /** Calls to ztunnel's own ports are refused. */
  | "own-ports"
  | "dns-tcp"
  | "dns-udp"
  /** Of a sidecar pod: from 127.0.0.1 to 127.0.0.6, as the pod's own check connects. */
  | "redirected";

export interface Proof {
  readonly row: ProofRow;
  readonly family: 4 | 6;
  readonly result: "proved" | "failed" | "skipped";
  /** What was seen, or why nothing could be. */
  readonly evidence: string;
  readonly milliseconds: number;
}

export interface Prover {
  /** Every row that applies. Leaves nothing behind. Rejects only when the netns can't be read. */
  prove(netns: NetnsHandle, spec: CaptureSpec): Promise<readonly Proof[]>;
}
