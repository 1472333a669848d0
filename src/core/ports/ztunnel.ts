// SPDX-License-Identifier: Apache-2.0
// ztunnel as the agent sees it: told of pods over ZDS.
import type { NetnsHandle, NetnsId } from "./netns.ts";
import type { PlannedChange } from "./plan.ts";

export interface Workload {
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
}

export interface SnapshotEntry {
  readonly workload: Workload;
  readonly netns: NetnsHandle | undefined;
}

export interface ZtunnelConnection {
  readonly id: number;
  /** Pid of the peer in our pid namespace; 0 when it lives in another one. */
  readonly pid: number;
  /** Of the peer's process. */
  readonly uid: number;
  /** Version of ZDS that it said hello with; 0 before that. */
  readonly protocol: number;
  /** Since it connected. */
  readonly seconds: number;
  readonly ready: boolean;
  readonly acked: number;
}

/** Why a connection ends: the words of the metric. */
export const CLOSE_REASONS = [
  ...(["eof", "read_error", "send_error", "hello_timeout", "hello_garbage", "hello_version", "ack_timeout"] as const),
  ...(["unsolicited", "garbage", "truncated", "fds", "snapshot_refused", "snapshot_failed", "stopped"] as const),
] as const;
export type CloseReason = (typeof CLOSE_REASONS)[number];

/** Why one is not taken at all. */
export const REJECT_REASONS = ["not_root", "too_many", "stopped"] as const;
export type RejectReason = (typeof REJECT_REASONS)[number];

/** What last went wrong at the socket: a peer turned away or dropped, or a workload that it refused. */
export interface ZtunnelTrouble {
  /** Stable word, as the metric of disconnects has it, or `refused`. */
  readonly reason: CloseReason | RejectReason | "refused";
  readonly detail: string;
  readonly secondsAgo: number;
}

export interface ZtunnelPeer {
  /** ZtunnelConnection.id */
  readonly connection: number;
  /** In our pid namespace; 0 when it lives in another one, as every container does. */
  readonly pid: number;
  /** pidfd of the process; -1 when the kernel can't tell (before 6.5). Closed once the callee returns. */
  readonly pidfd: number;
}

export interface ZtunnelListener {
  /** A ztunnel has said hello; it is told nothing before this returns. */
  met(peer: ZtunnelPeer): void;
  /** The connection of one that was met has ended. The process may live on and connect again. */
  parted(connection: number): void;
  /** This workload's listeners are bound in that netns (unknown for a `keep`): a snapshot's ack, or a later one. */
  acked(uid: string, connection: number, netns: NetnsId | undefined): void;
  /** ztunnel refused an add of a snapshot; it retries by itself every 5 s. */
  refused(uid: string, connection: number, reason: string): void;
  /** A connection finished its snapshot (`ready`) or is gone. */
  changed(): void;
}

/** Processes of ztunnels that were met, as long as they live. */
export interface ZtunnelProcesses {
  met(peer: ZtunnelPeer): void;
  /** Pids, in the node's namespace, of those that run nothing: stopped by a signal or by a debugger. No fork. */
  stopped(): readonly number[];
}

/** What shows that a ztunnel does not answer. */
export const STUCK_SIGNS = ["process", "listener"] as const;
export type StuckSign = (typeof STUCK_SIGNS)[number];

export interface ZtunnelStuck {
  readonly sign: StuckSign;
  /** A sentence, without the time. */
  readonly detail: string;
  /** For how long it has been seen. */
  readonly seconds: number;
}

export interface Ztunnel {
  /** Binds the socket. Peers may connect but are not read before `serve`. */
  listen(): void;
  /** Starts answering peers. Call it only once the pod list has been rebuilt: an early snapshot kills proxies. */
  serve(snapshot: () => readonly SnapshotEntry[], listener: ZtunnelListener): void;
  /** What `add` would send. @throws AgentError ZDS_MESSAGE. */
  plan(workload: Workload): readonly PlannedChange[];
  /**
   * Sends `add` to the newest connection that finished its snapshot, falling back to the next.
   * Resolves on its ack. @throws AgentError NO_ZTUNNEL | ZTUNNEL_REFUSED | ZTUNNEL_TIMEOUT.
   */
  add(workload: Workload, netns: NetnsHandle, signal?: AbortSignal): Promise<void>;
  /**
   * Sends `del` to every connection; resolves when all that live have acked or died. The uid is in no
   * snapshot from here on, until the next `add`.
   */
  del(uid: string): Promise<void>;
  connections(): readonly ZtunnelConnection[];
  /** undefined: nothing since the start. */
  trouble(): ZtunnelTrouble | undefined;
  /** False when a ztunnel that comes now would not find the socket: it was removed under us. */
  readonly listening: boolean;
  stop(): Promise<void>;
}
