// SPDX-License-Identifier: Apache-2.0
import { messageOf } from "../core/errors.ts";
import type { EngineName } from "../core/ports/dataplane.ts";
import type { NetnsId } from "../core/ports/netns.ts";
import type { Verdict, VerdictCounts } from "../core/verdicts.ts";
import type { Enrollment } from "./enrollment.ts";
import type { Parts } from "./parts.ts";

/** What an engine has decided for one pod since the reading before. */
export interface VerdictIncrease {
  readonly enrollment: Enrollment;
  readonly engine: EngineName;
  /** Only what has grown. */
  readonly counts: VerdictCounts;
  /** Since the reading before, ms; undefined: this is the first one, and counts are all that the kernel has. */
  readonly milliseconds: number | undefined;
}

interface Reading {
  readonly netns: NetnsId;
  readonly engine: EngineName;
  readonly counts: VerdictCounts;
  /** On the agent's clock, ms. */
  readonly at: number;
}

/** Reads the counters that engines keep in the kernel for each pod, and says by how much they have grown. */
export class VerdictReadings {
  private readonly readings = new Map<string, Reading>();

  constructor(private readonly parts: Pick<Parts, "dataplane" | "clock" | "logger">) {}

  /**
   * Reads pods that were not read for `freshMs`, those first that were not read for the longest time, for as long
   * as `budgetMs` allows: the others have their turn next time.
   */
  round(
    pods: Iterable<Enrollment>,
    { budgetMs, freshMs }: { readonly budgetMs: number; readonly freshMs: number },
  ): VerdictIncrease[] {
    const now = this.parts.clock.now();
    const due = [...pods]
      .map((enrollment) => ({ enrollment, at: this.readings.get(enrollment.uid)?.at ?? Number.NEGATIVE_INFINITY }))
      .filter(({ at }) => now - at >= freshMs)
      .sort((a, b) => a.at - b.at);
    const until = performance.now() + budgetMs;
    const increases: VerdictIncrease[] = [];
    for (const { enrollment } of due) {
      if (performance.now() >= until) break;
      const increase = this.take(enrollment);
      if (increase !== undefined) increases.push(increase);
    }
    return increases;
  }

  /** Reads one pod's counters: also before they go with it. undefined: it is not captured, or they can't be read. */
  take(enrollment: Enrollment): VerdictIncrease | undefined {
    const { netns, engine, uid } = enrollment;
    if (netns === undefined || engine === undefined || enrollment.capturedNetns !== netns.id) {
      this.forget(uid);
      return undefined;
    }
    const { dataplane, clock, logger } = this.parts;
    try {
      const reading = { netns: netns.id, engine, counts: dataplane.verdicts(netns, engine), at: clock.now() };
      const before = this.readings.get(uid);
      this.readings.set(uid, reading);
      const same = before?.netns === reading.netns && before.engine === engine ? before : undefined;
      const counts = grown(reading.counts, same?.counts ?? {});
      return { enrollment, engine, counts, milliseconds: same === undefined ? undefined : reading.at - same.at };
    } catch (error) {
      logger.debug("a pod's counters can't be read", { pod: enrollment.name, uid, error: messageOf(error) });
      return undefined;
    }
  }

  /** The pod is gone, or no longer ours. */
  forget(uid: string): void {
    this.readings.delete(uid);
  }

  /** Forgets pods that are none of these. */
  keep(uids: ReadonlySet<string>): void {
    for (const uid of this.readings.keys()) if (!uids.has(uid)) this.forget(uid);
  }

  /** How long ago, in ms, the pod was read that has waited for the longest time; 0 without any. */
  get age(): number {
    const oldest = Math.min(...[...this.readings.values()].map(({ at }) => at));
    return Number.isFinite(oldest) ? this.parts.clock.now() - oldest : 0;
  }
}

function grown(counts: VerdictCounts, before: VerdictCounts): VerdictCounts {
  const more: Partial<Record<Verdict, number>> = {};
  for (const [word, count] of Object.entries(counts)) {
    const verdict = word as Verdict;
    const known = before[verdict] ?? 0;
    // Rules that were written anew count from nothing.
    const growth = count >= known ? count - known : count;
    if (growth > 0) more[verdict] = growth;
  }
  return more;
}
