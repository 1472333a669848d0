// SPDX-License-Identifier: Apache-2.0
import { backoffMs } from "../core/backoff.ts";
import { type Clock, systemClock } from "../core/clock.ts";
import type { Stop } from "../core/disposable.ts";
import { AgentError, messageOf } from "../core/errors.ts";
import type { NetnsHandle } from "../core/ports/netns.ts";
import type { PlannedChange } from "../core/ports/plan.ts";
import type { Logger, Metrics } from "../core/ports/telemetry.ts";
import type {
  CloseReason,
  RejectReason,
  SnapshotEntry,
  Workload,
  Ztunnel,
  ZtunnelConnection,
  ZtunnelListener,
  ZtunnelTrouble,
} from "../core/ports/ztunnel.ts";
import type { NativeBinding, SeqpacketConnection, SeqpacketHandler, SeqpacketServer } from "../native/binding.ts";
import { encodeAdd, ZDS_VERSION } from "./codec.ts";
import { Dispatch } from "./dispatch.ts";
import { Registry } from "./registry.ts";
import { Session } from "./session.ts";
import type { SessionState } from "./session-state.ts";
import { identifySocket, prepareSocketPath, removeSocket, type SocketFile } from "./socket-path.ts";

/** What upstream's socket gets under the usual umask: only root may connect. */
const SOCKET_MODE = 0o755;
/** One ztunnel, its successor, and room for a few that died unnoticed. */
const MAX_CONNECTIONS = 16;
/** ztunnel reconnects at once after a failed snapshot; this keeps that from becoming a hot loop. */
const SNAPSHOT_BACKOFF = { initialMs: 100, maxMs: 5000, jitter: 0.2 };
/** A peer that we dropped keeps its proxies and connects again: only if it doesn't, others take its workloads. */
const REHOME_MS = 5000;

export interface ZdsServerOptions {
  readonly path: string;
  readonly binding: Pick<NativeBinding, "seqpacketListen" | "close">;
  readonly logger: Logger;
  readonly metrics: Metrics;
  readonly clock?: Clock;
  readonly random?: () => number;
}

/**
 * The agent's end of ZDS: ztunnels connect, get the node's workloads with their network namespaces,
 * and are told of changes. Nothing a peer does can make it throw; a bad peer loses its connection.
 */
export class ZdsServer implements Ztunnel {
  readonly #options: ZdsServerOptions;
  readonly #clock: Clock;
  readonly #random: () => number;
  readonly #registry = new Registry();
  readonly #dispatch = new Dispatch(this.#registry);
  #socket: SeqpacketServer | undefined;
  #socketFile: SocketFile | undefined;
  #snapshot: (() => readonly SnapshotEntry[]) | undefined;
  #listener: ZtunnelListener | undefined;
  #nextId = 1;
  /** Connections in a row that did not survive their snapshot. */
  #failures = 0;
  readonly #timers = new Set<Stop>();
  /** Connections of whose peer the listener has been told. */
  readonly #met = new Set<number>();
  #stopped = false;
  #trouble: (Pick<ZtunnelTrouble, "reason" | "detail"> & { readonly at: number }) | undefined;

  constructor(options: ZdsServerOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#random = options.random ?? Math.random;
  }

  /** @throws AgentError ZDS_SOCKET when the socket can't be bound. */
  listen(): void {
    if (this.#socket !== undefined || this.#stopped)
      throw new AgentError("ZDS_SOCKET", "the ZDS server listens only once");
    const { path, binding, metrics } = this.#options;
    prepareSocketPath(path);
    try {
      this.#socket = binding.seqpacketListen(path, SOCKET_MODE, (connection) => this.#accept(connection));
    } catch (error) {
      throw new AgentError("ZDS_SOCKET", `the ZDS socket ${path} can't be bound: ${messageOf(error)}`, undefined, {
        cause: error,
      });
    }
    this.#socketFile = identifySocket(path);
    metrics.set("ztunnel_connected", 0);
  }

  serve(snapshot: () => readonly SnapshotEntry[], listener: ZtunnelListener): void {
    if (this.#snapshot !== undefined) throw new AgentError("ZDS_SOCKET", "the ZDS server serves only once");
    this.#snapshot = snapshot;
    this.#listener = listener;
    for (const session of this.#registry.all()) this.#begin(session);
  }

  plan(workload: Workload): readonly PlannedChange[] {
    const { uid, name, namespace, serviceAccount } = workload;
    const bytes = encodeAdd(workload).length;
    const message = { add: { uid, workload_info: { name, namespace, service_account: serviceAccount } } };
    return [
      { what: `ZDS message of ${bytes} bytes, with the netns beside it`, text: JSON.stringify(message, null, 2) },
    ];
  }

  add(workload: Workload, netns: NetnsHandle, signal?: AbortSignal): Promise<void> {
    return this.#dispatch.add(workload, netns, signal);
  }

  async del(uid: string): Promise<void> {
    try {
      await this.#dispatch.del(uid);
    } catch (error) {
      this.#options.logger.error("ztunnel did not delete a workload", { uid, error: messageOf(error) });
      throw error;
    }
  }

  get listening(): boolean {
    const [own, found] = [this.#socketFile, identifySocket(this.#options.path)];
    return own !== undefined && !this.#stopped && found?.dev === own.dev && found.ino === own.ino;
  }

  connections(): readonly ZtunnelConnection[] {
    return this.#registry.all().map((session) => ({
      id: session.id,
      pid: session.peer.pid,
      uid: session.peer.uid,
      protocol: session.state === "greeting" ? 0 : ZDS_VERSION,
      seconds: Math.floor((this.#clock.now() - session.since) / 1000),
      ready: session.state === "ready",
      acked: session.acked.size,
    }));
  }

  trouble(): ZtunnelTrouble | undefined {
    if (this.#trouble === undefined) return undefined;
    const { at, ...trouble } = this.#trouble;
    return { ...trouble, secondsAgo: Math.floor((this.#clock.now() - at) / 1000) };
  }

  /** Closes without a word: ztunnel keeps its workloads and connects again. */
  async stop(): Promise<void> {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#socket?.close();
    if (this.#socketFile !== undefined) removeSocket(this.#options.path, this.#socketFile);
    for (const cancel of this.#timers) cancel();
    this.#timers.clear();
    this.#dispatch.stop();
    for (const session of this.#registry.all()) session.drop("stopped", "the agent is stopping");
  }

  #accept(connection: SeqpacketConnection): SeqpacketHandler {
    const { uid, pid } = connection.peer;
    // ztunnel runs as root and gets the netns of every pod here: nobody else is served.
    if (uid !== 0) return this.#reject(connection, "not_root", `a peer with uid ${uid} (pid ${pid})`);
    if (this.#stopped) return this.#reject(connection, "stopped", "the agent is stopping");
    if (this.#registry.size >= MAX_CONNECTIONS) {
      return this.#reject(connection, "too_many", `${this.#registry.size} connections are open`);
    }
    const { logger, metrics, binding } = this.#options;
    const session = new Session({
      id: this.#nextId++,
      connection,
      clock: this.#clock,
      metrics,
      random: this.#random,
      closeFd: (fd) => binding.close(fd),
      events: {
        greeted: (greeted) => this.#greeted(greeted),
        ready: (ready) => this.#ready(ready),
        acked: (from, acked, netns) => this.#tell((listener) => listener.acked(acked, from.id, netns)),
        refused: (from, refused, reason) => {
          this.#note("refused", `${refused}: ${reason}`);
          logger.warn("ztunnel refused a workload of its snapshot", { connection: from.id, uid: refused, reason });
          this.#tell((listener) => listener.refused(refused, from.id, reason));
        },
        closed: (closed, before, reason, detail) => this.#closed(closed, before, reason, detail),
      },
    });
    this.#registry.add(session);
    logger.debug("a ZDS peer connected", { connection: session.id, pid, uid });
    return session;
  }

  #reject(connection: SeqpacketConnection, reason: RejectReason, detail: string): SeqpacketHandler {
    const { logger, metrics, binding } = this.#options;
    metrics.count("ambient_cni_zds_disconnects_total", { reason });
    this.#note(reason, detail);
    logger.warn("a ZDS peer was turned away", { reason, detail });
    connection.close();
    return {
      packet: (_message, fds) => {
        for (const fd of fds) binding.close(fd);
      },
      end: () => {},
    };
  }

  #greeted(session: Session): void {
    const { pid, uid } = session.peer;
    this.#options.logger.info("ztunnel connected", { connection: session.id, pid, uid });
    this.#gauge();
    if (this.#failures === 0) {
      this.#begin(session);
      return;
    }
    this.#after(backoffMs(SNAPSHOT_BACKOFF, this.#failures - 1, this.#random), () => this.#begin(session));
  }

  /** Cuts and starts the snapshot of a greeted peer, once the pod list may be read. */
  #begin(session: Session): void {
    if (this.#snapshot === undefined || session.state !== "held") return;
    this.#meet(session);
    let entries: readonly SnapshotEntry[];
    try {
      entries = this.#snapshot();
    } catch (error) {
      session.drop("snapshot_failed", messageOf(error));
      this.#failures++;
      return;
    }
    this.#options.logger.debug("ztunnel gets its snapshot", { connection: session.id, workloads: entries.length });
    this.#dispatch.start(session, entries);
  }

  /** Nothing has been sent yet: whoever must act on the peer's process first does so now. */
  #meet(session: Session): void {
    const { id, peer } = session;
    const pidfd = session.peerPidfd();
    this.#met.add(id);
    try {
      this.#tell((listener) => listener.met({ connection: id, pid: peer.pid, pidfd }));
    } finally {
      if (pidfd >= 0) this.#options.binding.close(pidfd);
    }
  }

  #ready(session: Session): void {
    this.#failures = 0;
    this.#options.logger.info("ztunnel has its snapshot", { connection: session.id, workloads: session.acked.size });
    this.#tell((listener) => listener.changed());
  }

  #closed(session: Session, before: SessionState, reason: CloseReason, detail: string): void {
    this.#registry.remove(session);
    this.#gauge();
    const { logger, metrics } = this.#options;
    metrics.count("ambient_cni_zds_disconnects_total", { reason });
    const fields = { connection: session.id, pid: session.peer.pid, reason, detail, state: before };
    if (reason === "eof" || reason === "stopped") logger.info("ztunnel disconnected", fields);
    else {
      this.#note(reason, detail);
      logger.warn("ztunnel disconnected", fields);
    }
    if (before === "snapshot") this.#failures++;
    if (!this.#stopped) {
      this.#dispatch.lost(session);
      const gone = reason === "eof" || reason === "read_error" || reason === "send_error";
      if (gone) this.#dispatch.rehome();
      else this.#after(REHOME_MS, () => this.#dispatch.rehome());
    }
    // When we leave, ztunnel stays.
    const parted = this.#met.delete(session.id) && reason !== "stopped";
    if (parted) this.#tell((listener) => listener.parted(session.id));
    this.#tell((listener) => listener.changed());
  }

  #note(reason: ZtunnelTrouble["reason"], detail: string): void {
    this.#trouble = { reason, detail, at: this.#clock.now() };
  }

  #gauge(): void {
    const greeted = this.#registry.all().filter((session) => session.state !== "greeting");
    this.#options.metrics.set("ztunnel_connected", greeted.length);
  }

  #after(ms: number, task: () => void): void {
    const cancel = this.#clock.after(ms, () => {
      this.#timers.delete(cancel);
      task();
    });
    this.#timers.add(cancel);
  }

  /** A listener's failure is its own: the protocol goes on. */
  #tell(task: (listener: ZtunnelListener) => void): void {
    if (this.#listener === undefined) return;
    try {
      task(this.#listener);
    } catch (error) {
      this.#options.logger.error("a listener of ztunnel's events failed", { error: messageOf(error) });
    }
  }
}
