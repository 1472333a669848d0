// SPDX-License-Identifier: Apache-2.0
import { messageOf } from "../core/errors.ts";
import type { EngineName } from "../core/ports/dataplane.ts";
import type { NetnsId } from "../core/ports/netns.ts";
import type { VerdictCounts } from "../core/verdicts.ts";
import type { Enrollment } from "./enrollment.ts";
import type { Parts } from "./parts.ts";
import type { Roster } from "./roster.ts";

/** For all pods together, in ms: whoever asks for metrics must not keep pods waiting. */
const BUDGET_MS = 20;
/** Read again after this at the earliest, in ms, however many scrape. */
const FRESH_MS = 1000;

interface Reading {
  readonly netns: NetnsId;
  readonly engine: EngineName;
  readonly counts: VerdictCounts;
  /** On the agent's clock, ms. */
  readonly at: number;
}

/**
 * Adds up what engines decide for pods. The kernel counts per pod and forgets with it; here it is summed by
 * engine and verdict, and only grows while the agent runs.
 */
export class VerdictTally {
  private readonly readings = new Map<string, Reading>();

  constructor(
    private readonly parts: Pick<Parts, "dataplane" | "metrics" | "clock" | "logger">,
    private readonly roster: Roster,
  ) {}

  /** Reads every captured pod's counters, those first that were not read for the longest time, as far as time allows. */
  read(): void {
    const { clock } = this.parts;
    const now = clock.now();
    const due = [...this.roster.all()]
      .map((enrollment) => ({ enrollment, at: this.readings.get(enrollment.uid)?.at ?? Number.NEGATIVE_INFINITY }))
      .filter(({ at }) => now - at >= FRESH_MS)
      .sort((a, b) => a.at - b.at);
    const until = performance.now() + BUDGET_MS;
    for (const { enrollment } of due) {
      if (performance.now() >= until) return;
      this.take(enrollment);
    }
  }

  /** Reads one pod's counters: also before they go with it. Never throws. */
  take(enrollment: Enrollment): void {
    const { netns, engine, uid } = enrollment;
    if (netns === undefined || engine === undefined || enrollment.capturedNetns !== netns.id) {
      this.forget(uid);
      return;
    }
    try {
      const counts = this.parts.dataplane.verdicts(netns, engine);
      this.add(enrollment, { netns: netns.id, engine, counts, at: this.parts.clock.now() });
    } catch (error) {
      this.parts.logger.debug("a pod's counters can't be read", { pod: enrollment.name, uid, error: messageOf(error) });
    }
  }

  /** The pod is gone, or no longer ours. */
  forget(uid: string): void {
    this.readings.delete(uid);
  }

  /** How long ago, in ms, the pod was read that has waited for the longest time; 0 without any. */
  get age(): number {
    const oldest = Math.min(...[...this.readings.values()].map(({ at }) => at));
    return Number.isFinite(oldest) ? this.parts.clock.now() - oldest : 0;
  }

  private add({ uid, adopted }: Enrollment, reading: Reading): void {
    const last = this.readings.get(uid);
    this.readings.set(uid, reading);
    const same = last !== undefined && last.netns === reading.netns && last.engine === reading.engine;
    // What was counted before this agent is not of its life.
    if (!same && adopted) return;
    for (const [verdict, count] of Object.entries(reading.counts)) {
      const before = same ? (last.counts[verdict as keyof VerdictCounts] ?? 0) : 0;
      // Rules that were written anew count from nothing.
      const more = count >= before ? count - before : count;
      if (more > 0) {
        this.parts.metrics.count("ambient_cni_verdicts_total", { engine: reading.engine, verdict }, more);
      }
    }
  }
}
