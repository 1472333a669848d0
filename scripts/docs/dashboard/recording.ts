// SPDX-License-Identifier: Apache-2.0
import type { Dashboard } from "../../../test/support/dashboard.ts";
import { asGrafana } from "../../../test/support/monitoring.ts";
import type { Prometheus } from "../../../test/support/prometheus.ts";

/** What one query gave: a value for each step of the recording. */
export interface RecordedSeries {
  readonly labels: Readonly<Record<string, string>>;
  /** Separated by spaces; `-` where there was none. */
  readonly values: string;
}

export interface RecordedQuery {
  readonly panel: string;
  readonly refId: string;
  /** As the dashboard had it: another one would not have given this. */
  readonly expr: string;
  readonly series: readonly RecordedSeries[];
}

/** What a Prometheus answered to every query of the dashboard after a run of a sandbox. */
export interface Recording {
  readonly note: string;
  readonly seconds: number;
  readonly step: number;
  readonly queries: readonly RecordedQuery[];
  /** Of each alert and state, 1 at the steps at which it had it. */
  readonly alerts: readonly RecordedSeries[];
}

export interface RecordingSpan {
  /** Unix times. */
  readonly start: number;
  readonly end: number;
  /** Seconds. */
  readonly step: number;
  readonly rateSeconds: number;
}

const ALERT_STATES = "max by (alertname, alertstate) (ALERTS)";

/** Asks every query of the dashboard, and what became of the alerts, for a span of time. */
export async function record(
  dashboard: Dashboard,
  prometheus: Prometheus,
  { start, end, step, rateSeconds }: RecordingSpan,
  note: string,
): Promise<Recording> {
  const queries: RecordedQuery[] = [];
  const steps = Math.floor((end - start) / step);
  const ask = async (expr: string): Promise<RecordedSeries[]> => {
    const answer = await prometheus.range(expr, start, start + steps * step, step);
    return answer.map(({ metric: { __name__: _name, ...labels }, values }) => {
      const at = new Map(values.map(([seconds, value]) => [Math.round((seconds - start) / step), value]));
      return { labels, values: Array.from({ length: steps + 1 }, (_, index) => written(at.get(index))).join(" ") };
    });
  };
  for (const panel of dashboard.panels) {
    if (panel.type === "row") continue;
    for (const { refId, expr } of panel.targets) {
      queries.push({ panel: panel.title, refId, expr, series: await ask(asGrafana(expr, rateSeconds)) });
    }
  }
  return { note, seconds: steps * step, step, queries, alerts: await ask(ALERT_STATES) };
}

/** NaN is a quantile of nothing. */
function written(value: number | undefined): string {
  return value === undefined || !Number.isFinite(value) ? "-" : String(Number(value.toPrecision(4)));
}

/** Values of a series as they were; undefined where there was none. */
export function valuesOf({ values }: RecordedSeries): readonly (number | undefined)[] {
  return values.split(" ").map((word) => (word === "-" ? undefined : Number(word)));
}
