// SPDX-License-Identifier: Apache-2.0
import type { FlowCounts } from "../core/flow/line.ts";
import type { Parts } from "./parts.ts";
import type { Roster } from "./roster.ts";
import { type VerdictIncrease, VerdictReadings } from "./verdict-readings.ts";

/** Of one turn. */
const ROUND = { budgetMs: 25, freshMs: 0 } as const;

/** What engines that tell no single flows have decided, from one turn to the next: by the counters of their rules. */
export class FlowCounters {
  readonly #readings: VerdictReadings;

  constructor(
    parts: Pick<Parts, "dataplane" | "clock" | "logger">,
    private readonly roster: Roster,
  ) {
    this.#readings = new VerdictReadings(parts);
  }

  /** Reads as many pods as the time allows: those that are left have theirs at the next turn. */
  turn(): FlowCounts[] {
    const pods = [...this.roster.all()].filter(({ engine }) => engine !== undefined && engine !== "ebpf");
    this.#readings.keep(new Set(pods.map(({ uid }) => uid)));
    return this.#readings.round(pods, ROUND).flatMap(lineOf);
  }
}

function lineOf({ enrollment, engine, counts, milliseconds }: VerdictIncrease): FlowCounts[] {
  // What was counted before anybody listened is no news.
  if (milliseconds === undefined || Object.keys(counts).length === 0) return [];
  const { uid, name } = enrollment;
  const at = new Date().toISOString();
  return [{ type: "counts", at, pod: name, uid, engine, milliseconds: Math.round(milliseconds), counts }];
}
