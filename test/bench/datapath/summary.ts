// SPDX-License-Identifier: Apache-2.0
// From samples to medians, ratios and the goals. Pure.
import { DIRECTIONS, type Direction } from "./ground.ts";
import type { Sample } from "./measure.ts";
import type { VariantName } from "./variants.ts";

export type Metric = keyof Sample;

export interface MetricMeaning {
  readonly metric: Metric;
  readonly title: string;
  readonly unit: string;
  readonly digits: number;
  readonly better: "more" | "less";
}

export const METRICS: readonly MetricMeaning[] = [
  { metric: "connections", title: "new connections", unit: "1/s", digits: 0, better: "more" },
  { metric: "bulk", title: "bulk throughput", unit: "Gbit/s", digits: 2, better: "more" },
  { metric: "p50", title: "request latency, p50", unit: "µs", digits: 1, better: "less" },
  { metric: "p99", title: "request latency, p99", unit: "µs", digits: 1, better: "less" },
  { metric: "cpu", title: "CPU per connection, with softirqs", unit: "µs", digits: 1, better: "less" },
  { metric: "ownCpu", title: "CPU per connection, as charged", unit: "µs", digits: 1, better: "less" },
];

/** All variants of one round in one direction, by turns: the n-th samples were measured side by side. */
export interface Round {
  readonly direction: Direction;
  readonly samples: ReadonlyMap<VariantName, readonly Sample[]>;
}

export interface Summary {
  readonly direction: Direction;
  readonly metric: Metric;
  readonly variant: VariantName;
  readonly median: number;
  readonly min: number;
  readonly max: number;
  /** Medians of the ratios of all turns; undefined where the other was not measured. */
  readonly toNone: number | undefined;
  readonly toUpstream: number | undefined;
}

export interface Goal {
  readonly text: string;
  readonly wanted: number;
  /** undefined: not measured. */
  readonly seen: number | undefined;
  readonly met: boolean;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length / 2;
  const at = (index: number) => sorted[index] ?? Number.NaN;
  return sorted.length % 2 === 1 ? at(Math.floor(middle)) : (at(middle - 1) + at(middle)) / 2;
}

export function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}

/** One row per direction, metric and variant, in this order. */
export function summarize(rounds: readonly Round[], variants: readonly VariantName[]): Summary[] {
  return DIRECTIONS.flatMap((direction) =>
    METRICS.flatMap(({ metric }) =>
      variants.flatMap((variant) => {
        const own = rounds.filter((round) => round.direction === direction);
        const values = valuesOf(own, variant, metric);
        if (values.length === 0) return [];
        return [
          {
            ...{ direction, metric, variant, median: median(values) },
            ...{ min: Math.min(...values), max: Math.max(...values) },
            toNone: pairedRatio(own, metric, variant, "none"),
            toUpstream: pairedRatio(own, metric, variant, "upstream"),
          },
        ];
      }),
    ),
  );
}

/** One value per round: the mean of its turns. */
function valuesOf(rounds: readonly Round[], variant: VariantName, metric: Metric): number[] {
  return rounds.flatMap(({ samples }) => {
    const turns = samples.get(variant) ?? [];
    return turns.length === 0 ? [] : [turns.reduce((sum, turn) => sum + turn[metric], 0) / turns.length];
  });
}

/** The machine's speed changes from second to second; what was measured side by side is compared side by side. */
function pairedRatio(
  rounds: readonly Round[],
  metric: Metric,
  variant: VariantName,
  base: VariantName,
): number | undefined {
  const ratios = rounds.flatMap(({ samples }) => {
    const others = samples.get(base) ?? [];
    return (samples.get(variant) ?? []).flatMap((own, turn) => {
      const other = others[turn];
      return other === undefined ? [] : [own[metric] / other[metric]];
    });
  });
  return ratios.length === 0 ? undefined : median(ratios);
}

/** What the ebpf engine is to reach, against what was seen. */
export function goals(summaries: readonly Summary[]): Goal[] {
  const goal = (direction: Direction, metric: "connections" | "bulk", base: "none" | "upstream", wanted: number) => {
    const row = summaries.find(
      (summary) => summary.variant === "ebpf" && summary.direction === direction && summary.metric === metric,
    );
    const seen = base === "none" ? row?.toNone : row?.toUpstream;
    const what = metric === "bulk" ? "bulk throughput" : "new connections";
    const than = base === "none" ? "no redirection" : "upstream's rules";
    const text = `ebpf, ${direction} ${what}: at least ${wanted} times ${than}`;
    return { text, wanted, seen, met: seen !== undefined && seen >= wanted };
  };
  return [
    goal("outbound", "connections", "none", 0.97),
    goal("inbound", "connections", "none", 0.97),
    goal("outbound", "bulk", "none", 0.97),
    goal("inbound", "bulk", "none", 0.97),
    goal("outbound", "connections", "upstream", 1.15),
    goal("outbound", "bulk", "upstream", 1.6),
  ];
}
