// SPDX-License-Identifier: Apache-2.0
import type { Drift, DriftKind, DriftRepair } from "../core/ports/drift.ts";
import type { Metrics } from "../core/ports/telemetry.ts";

/** Of what was found. */
const MAX_DETAIL = 400;

/** Counts repairs, and remembers the last one for people. */
export class DriftLedger implements Drift {
  readonly #counts = new Map<DriftKind, number>();
  readonly #broken = new Map<DriftKind, string>();
  #last: DriftRepair | undefined;

  constructor(
    private readonly metrics: Metrics,
    private readonly now: () => number = Date.now,
  ) {
    metrics.set("ambient_cni_drift_last_repair_timestamp_seconds", 0);
  }

  repaired(what: DriftKind, pod: string | undefined, detail: string): void {
    const at = this.now();
    this.#counts.set(what, (this.#counts.get(what) ?? 0) + 1);
    this.#last = { what, pod, detail: detail.slice(0, MAX_DETAIL), at };
    this.metrics.count("ambient_cni_drift_repairs_total", { what });
    this.metrics.set("ambient_cni_drift_last_repair_timestamp_seconds", at / 1000);
  }

  unrepaired(what: DriftKind, detail: string | undefined): void {
    if (detail === undefined) this.#broken.delete(what);
    else this.#broken.set(what, detail.slice(0, MAX_DETAIL));
  }

  get broken(): ReadonlyMap<DriftKind, string> {
    return this.#broken;
  }

  get counts(): ReadonlyMap<DriftKind, number> {
    return this.#counts;
  }

  get last(): DriftRepair | undefined {
    return this.#last;
  }
}
