// SPDX-License-Identifier: Apache-2.0
import type { EngineName } from "../core/ports/dataplane.ts";
import { VERDICTS } from "../core/verdicts.ts";
import type { Enrollment } from "./enrollment.ts";
import type { Parts } from "./parts.ts";
import type { Roster } from "./roster.ts";
import { type VerdictIncrease, VerdictReadings } from "./verdict-readings.ts";

/** For all pods together: whoever asks for metrics must not keep pods waiting, however many scrape. */
const ROUND = { budgetMs: 20, freshMs: 1000 } as const;

/**
 * Adds up what engines decide for pods. The kernel counts per pod and forgets with it; here it is summed by
 * engine and verdict, and only grows while the agent runs.
 */
export class VerdictTally {
  private readonly readings: VerdictReadings;
  private readonly begun = new Set<EngineName>();

  constructor(
    private readonly parts: Pick<Parts, "dataplane" | "metrics" | "clock" | "logger">,
    private readonly roster: Roster,
  ) {
    this.readings = new VerdictReadings(parts);
  }

  /** Reads captured pods' counters, as far as time allows. */
  read(): void {
    for (const increase of this.readings.round(this.roster.all(), ROUND)) this.add(increase);
  }

  /** Reads one pod's counters before they go with it. Never throws. */
  take(enrollment: Enrollment): void {
    const increase = this.readings.take(enrollment);
    if (increase !== undefined) this.add(increase);
  }

  /** The pod is gone, or no longer ours. */
  forget(uid: string): void {
    this.readings.forget(uid);
  }

  /** Of the reading that is the oldest, in ms. */
  get age(): number {
    return this.readings.age;
  }

  private add({ enrollment, engine, counts, milliseconds }: VerdictIncrease): void {
    this.begin(engine);
    // What was counted before this agent is not of its life.
    if (milliseconds === undefined && enrollment.adopted) return;
    for (const [verdict, more] of Object.entries(counts)) {
      this.parts.metrics.count("ambient_cni_verdicts_total", { engine, verdict }, more);
    }
  }

  /** An engine's verdicts are there as 0 before the first: Prometheus sees no increase in a series that begins above. */
  private begin(engine: EngineName): void {
    if (this.begun.has(engine)) return;
    this.begun.add(engine);
    for (const verdict of VERDICTS) this.parts.metrics.count("ambient_cni_verdicts_total", { engine, verdict }, 0);
  }
}
