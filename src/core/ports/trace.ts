// SPDX-License-Identifier: Apache-2.0
// One connection made inside a pod's netns, to see where it goes.
import type { NetnsHandle } from "./netns.ts";

export interface TracedHop {
  /** performance.now() when it was seen. */
  readonly at: number;
  readonly hop: "connect" | "answer" | "onward" | "end";
  readonly result: "ok" | "failed" | "unseen";
  readonly text: string;
}

export interface Traced {
  readonly hops: readonly TracedHop[];
  /** Who answered; nobody: it was refused, or nothing came back. */
  readonly answered: "ztunnel" | "pod" | "outside" | "refused" | "nobody";
}

export interface TraceDestination {
  /** Canonical. */
  readonly address: string;
  readonly port: number;
}

export interface Tracer {
  /** Why a connection made in the netns would prove nothing; undefined where it does. `ip`: the pod's, of the family. */
  obstacle(netns: NetnsHandle, ip: string): string | undefined;
  /** Connects, looks who answered and where it went on, and ends it. Nothing is sent, and nothing is left. */
  trace(netns: NetnsHandle, to: TraceDestination): Promise<Traced>;
}
