// SPDX-License-Identifier: Apache-2.0
// What each ZDS message does to the running proxies: ztunnel's src/inpod/statemanager.rs, rule by rule.
import { fstatSync } from "node:fs";
import { messageOf } from "../../core/errors.ts";
import type { NativeBinding } from "../../native/binding.ts";
import type { LocalName } from "./directory.ts";
import { type Journal, quoted } from "./journal.ts";
import { logStartFailure, type PodProxy } from "./pod-proxy.ts";
import type { TrackedConnection } from "./tracker.ts";

export type ZdsMessage =
  | { readonly kind: "add"; readonly uid: string; readonly info: LocalName | undefined; readonly netns: number }
  | { readonly kind: "keep"; readonly uid: string }
  | { readonly kind: "del"; readonly uid: string }
  | { readonly kind: "snapshot_sent" };

/** A message that a working agent never sends: ztunnel exits over it. */
export class ProtocolError extends Error {
  override readonly name = "ProtocolError";
}

/** An add whose proxy did not start: it is nacked and tried again every 5 s. */
export class StartError extends Error {
  override readonly name = "StartError";
}

interface Running {
  readonly proxy: PodProxy;
  readonly netnsId: string;
  /** Open until the proxy's last socket is closed: nobody else can get the inode meanwhile. */
  readonly netns: number;
}

interface Pending {
  readonly info: LocalName;
  readonly netns: number;
}

/** One entry of the config dump's `workloadState`. */
export interface WorkloadState {
  readonly state: "Up" | "Pending";
  readonly connections?: { readonly inbound: TrackedConnection[]; readonly outbound: TrackedConnection[] };
  readonly info: LocalName;
}

/** Starts the proxy of a pod. It borrows the fd. */
export type StartProxy = (info: LocalName, netns: number) => Promise<PodProxy>;

export class Proxies {
  private readonly running = new Map<string, Running>();
  private readonly pending = new Map<string, Pending>();
  private readonly ending = new Set<Promise<void>>();
  private readonly shown = new Map<
    string,
    { info: LocalName; proxy: PodProxy | undefined; count: number; up: boolean }
  >();
  private snapshotReceived = false;
  private snapshot = new Set<string>();

  constructor(
    private readonly native: NativeBinding,
    private readonly start: StartProxy,
    private readonly journal: Journal,
  ) {}

  /** True after the snapshot, while nothing waits for a retry. */
  get ready(): boolean {
    return this.snapshotReceived && this.pending.size === 0;
  }

  get pendingUids(): string[] {
    return [...this.pending.keys()];
  }

  /** A new connection to the agent: it tells everything again. */
  reset(): void {
    this.snapshot = new Set();
    this.snapshotReceived = false;
    for (const uid of this.pendingUids) this.forget(uid);
  }

  /**
   * Does what one message asks; owns the fd of an add. @throws ProtocolError (the process must exit) or
   * StartError (the add is pending).
   */
  async process(message: ZdsMessage): Promise<void> {
    switch (message.kind) {
      case "add":
        return this.add(message.uid, message.info, message.netns);
      case "keep":
        this.journal.log("info", "inpod", "pod keep received", { uid: quoted(message.uid) });
        if (this.snapshotReceived) throw new ProtocolError("pod keep received after snapshot");
        this.snapshot.add(message.uid);
        return;
      case "del":
        this.journal.log("info", "inpod", "pod delete request, shutting down proxy", { uid: quoted(message.uid) });
        this.forget(message.uid);
        // Before the snapshot a running proxy only loses its protection: the reconcile ends it.
        if (this.snapshotReceived) this.end(message.uid);
        else this.snapshot.delete(message.uid);
        return;
      case "snapshot_sent":
        this.journal.log("info", "inpod", "received snapshot sent");
        if (this.snapshotReceived) throw new ProtocolError("pod snapshot received already");
        for (const uid of [...this.running.keys()]) if (!this.snapshot.has(uid)) this.end(uid);
        this.snapshot = new Set();
        this.snapshotReceived = true;
        return;
    }
  }

  /** Tries every pending add again. */
  async retry(): Promise<void> {
    for (const [uid, { info, netns }] of [...this.pending]) {
      this.journal.log("info", "inpod", "retrying workload", { uid: quoted(uid) });
      this.pending.delete(uid);
      await this.place(uid, info, netns).catch((error: unknown) => logStartFailure(this.journal, uid, error));
    }
  }

  /** Ends every proxy; resolves when all are gone. */
  async stop(mode: "immediate" | "graceful"): Promise<void> {
    for (const uid of [...this.running.keys()]) this.end(uid, mode);
    for (const uid of this.pendingUids) this.forget(uid);
    await Promise.all(this.ending);
  }

  /** The config dump's `workloadState`. */
  state(): Record<string, WorkloadState> {
    const entries = [...this.shown].map(([uid, { info, proxy, up }]) => {
      const state: WorkloadState = { state: up ? "Up" : "Pending", info };
      return [uid, proxy === undefined ? state : { ...state, connections: proxy.connections() }] as const;
    });
    return Object.fromEntries(entries);
  }

  private async add(uid: string, info: LocalName | undefined, netns: number): Promise<void> {
    this.journal.log("info", "inpod", "pod received, starting proxy", {
      uid: quoted(uid),
      name: quoted(info?.name),
      namespace: quoted(info?.namespace),
    });
    if (info === undefined) {
      this.native.close(netns);
      throw new ProtocolError("workload_info is required but not present");
    }
    if (!this.snapshotReceived) this.snapshot.add(uid);
    await this.place(uid, info, netns);
  }

  /** Starts the proxy, or parks the add. Owns the fd. */
  private async place(uid: string, info: LocalName, netns: number): Promise<void> {
    const { dev, ino } = fstatSync(netns, { bigint: true });
    const netnsId = `${dev}:${ino}`;
    const existing = this.running.get(uid);
    if (existing?.netnsId === netnsId) {
      this.native.close(netns);
      this.forget(uid);
      return;
    }
    // The sandbox was made again under the same pod: the old proxy serves a netns that is gone.
    if (existing !== undefined) this.end(uid);
    const shown = this.shown.get(uid) ?? { info, proxy: undefined, count: 0, up: false };
    shown.up = false;
    this.shown.set(uid, shown);
    let proxy: PodProxy;
    try {
      proxy = await this.start(info, netns);
    } catch (error) {
      this.forget(uid);
      this.pending.set(uid, { info, netns });
      this.journal.event({ event: "proxy", uid, state: "failed", error: messageOf(error) });
      throw new StartError(messageOf(error), { cause: error });
    }
    this.forget(uid);
    this.running.set(uid, { proxy, netnsId, netns });
    Object.assign(shown, { proxy, info, count: shown.count + 1, up: true });
    this.shown.set(uid, shown);
    this.journal.event({ event: "proxy", uid, state: "up", name: info.name, namespace: info.namespace });
  }

  private end(uid: string, mode: "immediate" | "graceful" = "immediate"): void {
    const running = this.running.get(uid);
    if (running === undefined) return;
    this.running.delete(uid);
    const ended = running.proxy.stop(mode).then(() => {
      this.native.close(running.netns);
      const shown = this.shown.get(uid);
      if (shown !== undefined) {
        shown.count -= 1;
        if (shown.count === 0) this.shown.delete(uid);
      }
      this.journal.event({ event: "proxy", uid, state: "down" });
    });
    this.ending.add(ended);
    void ended.finally(() => this.ending.delete(ended));
  }

  private forget(uid: string): void {
    const pending = this.pending.get(uid);
    if (pending === undefined) return;
    this.pending.delete(uid);
    this.native.close(pending.netns);
  }
}
