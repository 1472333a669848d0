// SPDX-License-Identifier: Apache-2.0
import type { Pod } from "../core/pod.ts";
import type { NetnsFinder, NetnsHandle } from "../core/ports.ts";

interface Request {
  readonly pod: Pod;
  resolve(handle: NetnsHandle | undefined): void;
  reject(error: unknown): void;
}

/**
 * Collects lookups that arrive while a pass over /proc is under way, and answers them all with the
 * next one: 200 pods labelled at once cost two passes, not 200.
 */
export class NetnsLookup {
  private waiting: Request[] = [];
  private running = false;

  constructor(private readonly finder: NetnsFinder) {}

  /** The pod's netns, owned by the caller; undefined when no process of the pod is found. */
  find(pod: Pod): Promise<NetnsHandle | undefined> {
    return new Promise((resolve, reject) => {
      this.waiting.push({ pod, resolve, reject });
      if (!this.running) void this.drain();
    });
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
  }
}
