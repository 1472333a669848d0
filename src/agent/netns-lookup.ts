// SPDX-License-Identifier: Apache-2.0
import type { Clock } from "../core/clock.ts";
import type { Pod } from "../core/pod.ts";
import type { NetnsFinder, NetnsHandle } from "../core/ports/netns.ts";

interface Request {
  readonly pod: Pod;
  resolve(handle: NetnsHandle | undefined): void;
  reject(error: unknown): void;
}

interface Kept {
  readonly handle: NetnsHandle;
  /** Monotonic ms. */
  readonly until: number;
}

/** How long a netns found on the way may wait for its pod's turn; the sweep is no fresher. */
const FRESH_MS = 5_000;

/**
 * Collects lookups that arrive while a pass over /proc is under way, and answers them all with the
 * next one. A pass also looks for the pods whose turn comes later, and keeps what it finds for them: 200
 * pods labelled at once cost two passes, not one for every few that are worked on at the same time.
 */
export class NetnsLookup {
  private waiting: Request[] = [];
  private running = false;
  private closed = false;
  private readonly kept = new Map<string, Kept>();

  /** `soon`: pods that will be looked up, as far as is known now. */
  constructor(
    private readonly finder: NetnsFinder,
    private readonly clock: Clock,
    private readonly soon: () => Iterable<Pod>,
  ) {}

  /** The pod's netns, owned by the caller; undefined when no process of the pod is found. */
  find(pod: Pod): Promise<NetnsHandle | undefined> {
    const kept = this.kept.get(pod.uid);
    this.kept.delete(pod.uid);
    if (kept !== undefined && this.clock.now() < kept.until) return Promise.resolve(kept.handle);
    kept?.handle.close();
    return new Promise((resolve, reject) => {
      this.waiting.push({ pod, resolve, reject });
      if (!this.running) void this.drain();
    });
  }

  /** Gives back what nobody came for. */
  close(): void {
    this.closed = true;
    this.drop(() => true);
  }

  private drop(which: (kept: Kept) => boolean): void {
    for (const [uid, kept] of this.kept) {
      if (!which(kept)) continue;
      this.kept.delete(uid);
      kept.handle.close();
    }
  }

  private async drain(): Promise<void> {
    this.running = true;
    // One turn of the event loop, so that a burst of triggers is one batch.
    await new Promise((resolve) => setImmediate(resolve));
    while (this.waiting.length > 0) {
      const batch = this.waiting;
      this.waiting = [];
      await this.answer(batch);
    }
    this.running = false;
  }

  private async answer(batch: readonly Request[]): Promise<void> {
    const pods = new Map(batch.map(({ pod }) => [pod.uid, pod]));
    let found: Map<string, NetnsHandle>;
    try {
      for (const pod of this.soon()) if (!this.kept.has(pod.uid)) pods.set(pod.uid, pods.get(pod.uid) ?? pod);
      found = await this.finder.find([...pods.values()]);
    } catch (error) {
      for (const request of batch) request.reject(error);
      return;
    }
    const handed = new Set<string>();
    for (const request of batch) {
      const { uid } = request.pod;
      const handle = found.get(uid);
      // An fd has one owner: a second request for the same pod is answered by the next pass.
      if (handle !== undefined && handed.has(uid)) this.waiting.push(request);
      else request.resolve(handle);
      handed.add(uid);
    }
    this.keep([...found].filter(([uid]) => !handed.has(uid)));
  }

  private keep(found: readonly (readonly [string, NetnsHandle])[]): void {
    if (found.length === 0) return;
    const until = this.clock.now() + FRESH_MS;
    for (const [uid, handle] of found) {
      this.kept.get(uid)?.handle.close();
      this.kept.set(uid, { handle, until });
    }
    if (this.closed) this.drop(() => true);
    // By what was kept and not by the time: Node's timers may end before the clock says so.
    else this.clock.after(FRESH_MS, () => this.drop((kept) => kept.until === until));
  }
}
