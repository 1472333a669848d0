// SPDX-License-Identifier: Apache-2.0
import type { Clock } from "../core/clock.ts";
import type { Stop } from "../core/disposable.ts";
import { messageOf } from "../core/errors.ts";
import type { NetnsId } from "../core/ports/netns.ts";
import type { Metrics } from "../core/ports/telemetry.ts";
import type { CloseReason, SnapshotEntry } from "../core/ports/ztunnel.ts";
import type { SeqpacketConnection, SeqpacketPeer } from "../native/binding.ts";
import { decodeHello, ZDS_VERSION } from "./codec.ts";
import { deadline } from "./deadline.ts";
import {
  addFrame,
  delFrame,
  type Frame,
  keepFrame,
  type Outcome,
  openFd,
  snapshotSentFrame,
  type Target,
} from "./frame.ts";
import { LockStep } from "./lockstep.ts";
import { Refusals } from "./refusals.ts";
import type { SessionState } from "./session-state.ts";

/** As upstream: a peer has this long to say hello. */
export const HELLO_TIMEOUT_MS = 5000;

export interface SessionEvents {
  greeted(session: Session): void;
  ready(session: Session): void;
  acked(session: Session, uid: string, netns: NetnsId): void;
  /** An add that nobody waits for was refused; told once per reason. */
  refused(session: Session, uid: string, reason: string): void;
  /** Told before the session's messages are settled as lost, and after it has left `live`. */
  closed(session: Session, before: SessionState, reason: CloseReason, detail: string): void;
}

export interface SessionOptions {
  readonly id: number;
  readonly connection: SeqpacketConnection;
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly random: () => number;
  readonly closeFd: (fd: number) => void;
  readonly events: SessionEvents;
}

export interface PendingAdd {
  readonly outcome: Promise<Outcome>;
  /** Not sent yet: it never will be. In flight: its ack is awaited all the same, and told to nobody. */
  cancel(): void;
}

/** One connection of a ztunnel, from hello to the end of file. */
export class Session {
  readonly id: number;
  readonly peer: SeqpacketPeer;
  /** Clock.now() when it connected. */
  readonly since: number;
  readonly #options: SessionOptions;
  readonly #lockstep: LockStep;
  readonly #refusals: Refusals;
  #state: SessionState = "greeting";
  #cancelHello: Stop;
  /** Entries of the snapshot that are still to be sent. */
  readonly #snapshot = new Map<string, SnapshotEntry>();
  #snapshotEnded = false;
  /** Messages that somebody waits for; held back until the end of the snapshot. */
  readonly #direct: Frame[] = [];
  /** Adds that nobody waits for, sent when nothing else is due: one for each uid, so it stays bounded. */
  readonly #background = new Map<string, Target>();
  /** What this ztunnel has acked and was not told to delete. */
  readonly #acked = new Map<string, Target>();

  constructor(options: SessionOptions) {
    this.id = options.id;
    this.peer = options.connection.peer;
    this.since = options.clock.now();
    this.#options = options;
    this.#lockstep = new LockStep({
      connection: options.connection,
      clock: options.clock,
      metrics: options.metrics,
      next: () => this.#next(),
      failed: (reason, detail) => this.drop(reason, detail),
    });
    this.#refusals = new Refusals(options.clock, options.random, (target) => this.#later(target));
    this.#cancelHello = deadline(options.clock, HELLO_TIMEOUT_MS, () =>
      this.drop("hello_timeout", `no hello within ${HELLO_TIMEOUT_MS} ms`),
    );
  }

  get state(): SessionState {
    return this.#state;
  }

  /** pidfd of the peer for the caller to close, or -1: unknown to the kernel, or the connection has ended. */
  peerPidfd(): number {
    return this.#state === "closed" ? -1 : this.#options.connection.peerPidfd();
  }

  /** Workloads that this connection has acked and not been told to delete. */
  get acked(): ReadonlyMap<string, Target> {
    return this.#acked;
  }

  /** True when this ztunnel runs the workload or will be told of it. */
  knows(uid: string): boolean {
    if (this.#acked.has(uid) || this.#snapshot.has(uid) || this.#background.has(uid)) return true;
    return [this.#lockstep.inFlight, ...this.#direct].some((frame) => frame?.type === "add" && frame.uid === uid);
  }

  /** Begins the snapshot of a greeted peer. An uid may occur only once. */
  start(entries: Iterable<SnapshotEntry>): void {
    if (this.#state !== "held") return;
    this.#state = "snapshot";
    for (const entry of entries) this.#snapshot.set(entry.workload.uid, entry);
    this.#lockstep.pump();
  }

  /** Queues an add whose outcome somebody waits for. */
  add(target: Target): PendingAdd {
    let told = true;
    let resolve: (outcome: Outcome) => void = () => {};
    const outcome = new Promise<Outcome>((settle) => {
      resolve = settle;
    });
    const frame = addFrame(target, (result) => {
      if (result.result === "acked") this.#remember(target, told);
      resolve(result);
    });
    this.#direct.push(frame);
    this.#lockstep.pump();
    return {
      outcome,
      cancel: () => {
        told = false;
        const index = this.#direct.indexOf(frame);
        if (index >= 0) this.#direct.splice(index, 1);
      },
    };
  }

  /** Makes sure that this ztunnel learns of a workload which another connection was asked to serve. */
  learn(target: Target): void {
    const { uid } = target.workload;
    if (this.#state !== "snapshot" && this.#state !== "ready") return;
    if (this.#snapshot.has(uid)) this.#snapshot.set(uid, { workload: target.workload, netns: target.netns });
    else if (this.#acked.get(uid)?.netns.id !== target.netns.id) this.#later(target);
  }

  /** Takes back a `learn` that was not sent yet. */
  unlearn(target: Target): void {
    const { uid } = target.workload;
    if (this.#background.get(uid) === target) this.#background.delete(uid);
  }

  /** Queues a del. During the snapshot it also takes the uid out of what is still to be sent. */
  del(uid: string): Promise<Outcome> {
    this.#snapshot.delete(uid);
    this.#refusals.forget(uid);
    this.#acked.delete(uid);
    this.#background.delete(uid);
    return new Promise((resolve) => {
      this.#direct.push(delFrame(uid, resolve));
      this.#lockstep.pump();
    });
  }

  /** One datagram of the peer. Its fds are ours to close. Never throws. */
  packet(message: Buffer, fds: readonly number[], truncated: boolean): void {
    for (const fd of fds) this.#options.closeFd(fd);
    if (this.#state === "closed") return;
    if (fds.length > 0) this.drop("fds", `the peer sent ${fds.length} file descriptors`);
    else if (truncated) this.drop("truncated", `a message longer than ${message.length} bytes`);
    else if (this.#state === "greeting") this.#hello(message);
    else if (this.#lockstep.inFlight === undefined)
      this.drop("unsolicited", `${message.length} bytes nobody asked for`);
    else this.#response(message);
  }

  /** End of file or read error. */
  end(error: Error | undefined): void {
    if (error === undefined) this.drop("eof", "the peer closed the connection");
    else this.drop("read_error", messageOf(error));
  }

  /** Closes the connection without sending anything: ztunnel keeps its workloads and connects again. */
  drop(reason: CloseReason, detail: string): void {
    if (this.#state === "closed") return;
    const before = this.#state;
    this.#state = "closed";
    this.#cancelHello();
    this.#refusals.stop();
    this.#options.connection.close();
    this.#options.events.closed(this, before, reason, detail);
    this.#lockstep.abandon(reason === "ack_timeout");
    for (const frame of this.#direct.splice(0)) frame.done({ result: "lost", timeout: false });
  }

  #hello(message: Buffer): void {
    let version: number;
    try {
      version = decodeHello(message);
    } catch (error) {
      this.drop("hello_garbage", messageOf(error));
      return;
    }
    if (version !== ZDS_VERSION) {
      this.drop("hello_version", `the peer speaks ZDS version ${version}, we speak ${ZDS_VERSION}`);
      return;
    }
    this.#cancelHello();
    this.#state = "held";
    this.#options.events.greeted(this);
  }

  #response(message: Buffer): void {
    try {
      this.#lockstep.acknowledge(message);
    } catch (error) {
      this.drop("garbage", messageOf(error));
    }
  }

  #next(): Frame | undefined {
    if (this.#state === "ready") return this.#directFrame() ?? this.#backgroundFrame();
    if (this.#state !== "snapshot") return undefined;
    for (const [uid, entry] of this.#snapshot) {
      this.#snapshot.delete(uid);
      return this.#snapshotFrame(entry);
    }
    if (this.#snapshotEnded) return undefined;
    this.#snapshotEnded = true;
    return snapshotSentFrame((outcome) => this.#snapshotAnswered(outcome));
  }

  #directFrame(): Frame | undefined {
    const frame = this.#direct.shift();
    if (frame?.type === "add") {
      // Whoever asks last owns the retries, and an older netns of the workload must not follow a newer one.
      this.#background.delete(frame.uid);
      this.#refusals.forget(frame.uid);
    }
    return frame;
  }

  #backgroundFrame(): Frame | undefined {
    for (const [uid, target] of this.#background) {
      this.#background.delete(uid);
      return addFrame(target, (outcome) => this.#backgroundAnswered(target, outcome));
    }
    return undefined;
  }

  /** A netns that was closed meanwhile gives a `keep`: a running proxy is ended by a del, not by doubt. */
  #snapshotFrame(entry: SnapshotEntry): Frame {
    const { workload, netns } = entry;
    const keep = () => keepFrame(workload.uid, (outcome) => this.#keepAnswered(workload.uid, outcome));
    if (netns === undefined) return keep();
    const target: Target = { workload, netns };
    try {
      openFd(target);
    } catch {
      return keep();
    }
    return addFrame(target, (outcome) => this.#backgroundAnswered(target, outcome));
  }

  #snapshotAnswered(outcome: Outcome): void {
    if (outcome.result === "refused") this.drop("snapshot_refused", outcome.reason);
    if (outcome.result !== "acked") return;
    this.#state = "ready";
    this.#options.events.ready(this);
  }

  #keepAnswered(uid: string, outcome: Outcome): void {
    if (outcome.result === "refused") this.#options.events.refused(this, uid, outcome.reason);
    if (outcome.result === "unsent") this.#options.events.refused(this, uid, outcome.error.message);
  }

  /** The answer to an add of the snapshot, a `learn` or a repeated add. */
  #backgroundAnswered(target: Target, outcome: Outcome): void {
    const { uid } = target.workload;
    if (this.#state === "closed" || this.#deletes(uid)) return;
    if (outcome.result === "acked") this.#remember(target, true);
    else if (outcome.result === "refused") {
      if (this.#refusals.note(target, outcome.reason)) this.#options.events.refused(this, uid, outcome.reason);
    } else if (outcome.result === "unsent") {
      this.#refusals.forget(uid);
      // A netns that its owner has closed is news to nobody: a del or an add with the next one follows.
      if (outcome.error.code !== "NETNS_CLOSED") this.#options.events.refused(this, uid, outcome.error.message);
    }
  }

  #remember(target: Target, tell: boolean): void {
    const { uid } = target.workload;
    if (this.#deletes(uid)) return;
    this.#acked.set(uid, target);
    this.#refusals.forget(uid);
    if (tell) this.#options.events.acked(this, uid, target.netns.id);
  }

  /** True when a del of this uid waits behind the message that was just answered. */
  #deletes(uid: string): boolean {
    return this.#direct.some((frame) => frame.type === "del" && frame.uid === uid);
  }

  #later(target: Target): void {
    this.#background.set(target.workload.uid, target);
    this.#lockstep.pump();
  }
}
