// SPDX-License-Identifier: Apache-2.0
// First packets of flows and what was decided about them, told by the engines while somebody reads.
import type { Stop } from "../disposable.ts";
import type { NetnsHandle } from "./netns.ts";

export interface Flow {
  /** Wall clock, ms. */
  readonly at: number;
  /** Netns of the pod, as `FlowSource.keyOf` names it. */
  readonly netns: bigint;
  /** The datapath's own word; src/core/flow/words.ts knows them all. */
  readonly word: string;
  readonly protocol: "tcp" | "udp";
  readonly source: string;
  /** 0: not chosen yet when it was decided. */
  readonly sourcePort: number;
  readonly destination: string;
  readonly destinationPort: number;
}

export interface FlowBatch {
  readonly flows: readonly Flow[];
  /** Events of this time that found no room. */
  readonly lost: number;
  /** ms of this time in which nothing was told, because we came too late to ask for more. */
  readonly blindMs: number;
}

export interface FlowSource {
  /**
   * Tells what happens from now on, several times a second, until it is stopped or `failed` is called. One reader at
   * a time. @throws AgentError NO_ENGINE where it is not available
   */
  open(told: (batch: FlowBatch) => void, failed: (error: unknown) => void): Stop;
  /** False: no flow can be told, on this node. */
  readonly available: boolean;
  keyOf(netns: NetnsHandle): bigint;
}
