// SPDX-License-Identifier: Apache-2.0
import { isTerminal, type Pod } from "../core/pod.ts";
import { eligibilityOf } from "./desire.ts";
import type { Parts } from "./parts.ts";
import type { Reconciler } from "./reconciler.ts";
import type { Roster } from "./roster.ts";

/** A pod that was enrolled less than this ago (ms) may have no process yet: its sandbox is starting. */
const YOUNG_MS = 45_000;

/**
 * The periodic second look. Events can be missed, a sandbox can be replaced under its pod, rules can
 * be flushed: every mesh pod's netns is resolved afresh in one pass over /proc, and every pod gets a
 * pass, which costs no fork when nothing differs.
 */
export class Sweep {
  private cancel: (() => void) | undefined;
  private stopped = false;

  constructor(
    private readonly parts: Parts,
    private readonly roster: Roster,
    private readonly reconciler: Reconciler,
    private readonly periodMs: number,
    private readonly swept: () => void,
  ) {}

  start(): void {
    this.cancel = this.parts.clock.after(this.periodMs, () => {
      void this.run()
        .catch((error: unknown) => this.parts.logger.error("sweep failed", { error: String(error) }))
        .finally(() => {
          if (!this.stopped) this.start();
        });
    });
  }

  stop(): void {
    this.stopped = true;
    this.cancel?.();
  }

  /** One sweep, now. */
  async run(): Promise<void> {
    try {
      await this.resolve();
      await this.reconciler.manual.keeping.contest();
    } finally {
      for (const { uid } of this.roster.all()) this.reconciler.queue.trigger(uid);
      this.parts.dataplane.collect();
      this.swept();
    }
  }

  /** Compares each mesh pod's netns with the one held. */
  private async resolve(): Promise<void> {
    const wanted = [...this.parts.cluster.pods()].filter((pod) => this.inMesh(pod));
    const found = await this.parts.finder.find(wanted);
    for (const pod of wanted) {
      const handle = found.get(pod.uid);
      const enrollment = this.roster.get(pod.uid);
      if (enrollment?.inCniAdd) {
        // Its netns came from the runtime a moment ago: newer than what /proc showed us.
        handle?.close();
        continue;
      }
      if (handle !== undefined) {
        const record = this.roster.ensure(pod);
        record.lost = false;
        record.offerNetns(handle);
      } else if (enrollment?.netns !== undefined && pod.phase === "Running" && !pod.deleting) {
        const now = this.parts.clock.now();
        if (now - (enrollment.enrolledSince ?? now) > YOUNG_MS) enrollment.lost = true;
      }
      this.reconciler.queue.trigger(pod.uid);
    }
  }

  private inMesh(pod: Pod): boolean {
    if (isTerminal(pod) || pod.ips.length === 0) return false;
    return eligibilityOf(this.parts.config, this.parts.cluster, pod).verdict === "ambient";
  }
}
