// SPDX-License-Identifier: Apache-2.0
import type { Stop } from "../core/disposable.ts";
import { AgentError } from "../core/errors.ts";
import { podKey } from "../core/pod.ts";
import type { NetnsHandle } from "../core/ports/netns.ts";
import type { SnapshotEntry, Workload } from "../core/ports/ztunnel.ts";
import { encodeAdd, encodeDel } from "./codec.ts";
import { type Outcome, openFd, type Target } from "./frame.ts";
import type { Registry } from "./registry.ts";
import type { PendingAdd, Session } from "./session.ts";

const REMEDY = "Check that the ztunnel pod of this node runs and mounts the directory of the ZDS socket.";

/** Far more than a node deletes while its agent still lists one of them. */
const MAX_DELETED = 4096;

interface Request {
  readonly target: Target;
  pending: PendingAdd | undefined;
  over: boolean;
  /** Settles the caller once; an error also takes back what was not sent yet. */
  end(error?: unknown): void;
}

/** Brings adds and dels to the connections that need them, whatever becomes of those meanwhile. */
export class Dispatch {
  readonly #registry: Registry;
  /** The one add per workload that a caller waits for. */
  readonly #requests = new Map<string, Request>();
  /** Deleted and not added since: in no snapshot, even while the caller still lists them. */
  readonly #deleted = new Set<string>();
  /** Workloads whose only connection was lost. */
  readonly #orphans = new Map<string, Target>();

  constructor(registry: Registry) {
    this.#registry = registry;
  }

  /** See Ztunnel.add. A newer add or a del of the same uid ends an older add with AgentError SUPERSEDED. */
  add(workload: Workload, netns: NetnsHandle, signal: AbortSignal | undefined): Promise<void> {
    const target: Target = { workload, netns };
    return new Promise((resolve, reject) => {
      // What throws here rejects the promise: nothing was queued yet.
      signal?.throwIfAborted();
      encodeAdd(workload);
      openFd(target);
      this.#requests.get(workload.uid)?.end(superseded(workload, "a newer add"));
      this.#deleted.delete(workload.uid);
      this.#orphans.delete(workload.uid);
      const request = this.#request(target, resolve, reject, signal);
      this.#requests.set(workload.uid, request);
      void this.#deliver(request);
    });
  }

  /** See Ztunnel.del. @throws AgentError ZTUNNEL_REFUSED when a connection answers with an error. */
  async del(uid: string): Promise<void> {
    encodeDel(uid);
    const request = this.#requests.get(uid);
    request?.end(superseded(request.target.workload, "a del"));
    this.#orphans.delete(uid);
    this.#entomb(uid);
    const answers = await Promise.all(
      this.#registry.started().map(async (session) => ({ session, outcome: await session.del(uid) })),
    );
    const refusals = answers.flatMap(({ session, outcome }) =>
      outcome.result === "refused" ? [`connection ${session.id}: ${outcome.reason}`] : [],
    );
    if (refusals.length > 0) {
      throw new AgentError("ZTUNNEL_REFUSED", `ztunnel refused to delete ${uid}: ${refusals.join("; ")}`);
    }
  }

  /**
   * Starts a session's snapshot. A workload that was deleted is left out until it is added again, though
   * the caller may still list it; one that is being added is in it or follows it, listed or not.
   */
  start(session: Session, entries: readonly SnapshotEntry[]): void {
    const snapshot = new Map<string, SnapshotEntry>();
    for (const entry of entries) {
      if (!this.#deleted.has(entry.workload.uid)) snapshot.set(entry.workload.uid, entry);
    }
    const unlisted: Target[] = [];
    for (const [uid, { target }] of this.#requests) {
      if (snapshot.has(uid)) snapshot.set(uid, target);
      else unlisted.push(target);
    }
    session.start(snapshot.values());
    for (const target of unlisted) session.learn(target);
  }

  /** Remembers what a lost connection served. Call it when the registry no longer holds the session. */
  lost(session: Session): void {
    for (const [uid, target] of session.acked) {
      if (!this.#requests.has(uid)) this.#orphans.set(uid, target);
    }
  }

  /**
   * Gives workloads whose connection was lost to the newest that is left. Without one, the snapshot
   * of the next connection tells it everything. It matters when a new ztunnel dies beside an old one.
   */
  rehome(): void {
    const heir = this.#registry.serving();
    for (const [uid, target] of this.#orphans) {
      if (heir !== undefined && !this.#registry.knows(uid)) heir.learn(target);
    }
    this.#orphans.clear();
  }

  /** Ends every add that is under way. */
  stop(): void {
    this.#orphans.clear();
    for (const { target, end } of [...this.#requests.values()])
      end(unavailable(target.workload, "the agent is stopping"));
  }

  /** Pod uids never return, so the oldest marks can go. */
  #entomb(uid: string): void {
    this.#deleted.delete(uid);
    this.#deleted.add(uid);
    for (const oldest of this.#deleted) {
      if (this.#deleted.size <= MAX_DELETED) break;
      this.#deleted.delete(oldest);
    }
  }

  #request(
    target: Target,
    resolve: () => void,
    reject: (error: unknown) => void,
    signal: AbortSignal | undefined,
  ): Request {
    const aborted = () => request.end(signal?.reason);
    const forget: Stop = () => signal?.removeEventListener("abort", aborted);
    const request: Request = {
      target,
      pending: undefined,
      over: false,
      end: (error) => {
        if (request.over) return;
        request.over = true;
        forget();
        if (this.#requests.get(target.workload.uid) === request) this.#requests.delete(target.workload.uid);
        if (error === undefined) {
          resolve();
          return;
        }
        request.pending?.cancel();
        for (const session of this.#registry.all()) session.unlearn(target);
        reject(error);
      },
    };
    signal?.addEventListener("abort", aborted);
    return request;
  }

  async #deliver(request: Request): Promise<void> {
    const { target } = request;
    let reason = "none is connected";
    let timeout = false;
    while (!request.over) {
      const session = this.#registry.serving();
      if (session === undefined) {
        request.end(timeout ? overdue(target.workload) : unavailable(target.workload, reason));
        return;
      }
      for (const successor of this.#registry.successors(session)) successor.learn(target);
      request.pending = session.add(target);
      const outcome = await request.pending.outcome;
      if (outcome.result !== "lost") {
        request.end(failure(target.workload, outcome));
        return;
      }
      timeout = outcome.timeout;
      reason = `connection ${session.id} was lost before it answered, and no other is ready`;
    }
  }
}

function failure(workload: Workload, outcome: Exclude<Outcome, { result: "lost" }>): AgentError | undefined {
  switch (outcome.result) {
    case "acked":
      return undefined;
    case "refused":
      return new AgentError("ZTUNNEL_REFUSED", `ztunnel refused ${podKey(workload)}: ${outcome.reason}`);
    case "unsent":
      return outcome.error;
  }
}

function unavailable(workload: Workload, reason: string): AgentError {
  return new AgentError("NO_ZTUNNEL", `no ztunnel takes ${podKey(workload)}: ${reason}`, REMEDY);
}

function overdue(workload: Workload): AgentError {
  return new AgentError("ZTUNNEL_TIMEOUT", `ztunnel did not answer the add of ${podKey(workload)} in time`, REMEDY);
}

function superseded(workload: Workload, by: string): AgentError {
  return new AgentError(
    "SUPERSEDED",
    `the add of ${podKey(workload)} to ztunnel was overtaken by ${by} of the same pod`,
  );
}
