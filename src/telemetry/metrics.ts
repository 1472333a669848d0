// SPDX-License-Identifier: Apache-2.0
import { release } from "node:os";
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import type { MetricLabels, Metrics } from "../core/ports/telemetry.ts";
import { METRICS, type MetricRow } from "./metric-table.ts";

type Instrument =
  | { readonly type: "counter"; readonly row: MetricRow; readonly of: Counter }
  | { readonly type: "gauge"; readonly row: MetricRow; readonly of: Gauge }
  | { readonly type: "histogram"; readonly row: MetricRow; readonly of: Histogram };

/** Resolution of the process's event loop lag, in ms. */
const LOOP_PRECISION_MS = 500;

/** The metrics of the table in a registry of their own, with prom-client's metrics of the process. */
export class PromMetrics implements Metrics {
  readonly #registry = new Registry();
  readonly #instruments = new Map<string, Instrument>();
  #measure: () => void = () => undefined;

  constructor(version: string) {
    for (const row of METRICS) {
      this.#instruments.set(row.name, instrument(row, this.#registry));
      for (const labels of row.zeros ?? []) this.count(row.name, labels, 0);
    }
    // Its default of 10 ms is a timer: it woke an idle agent a hundred times a second.
    collectDefaultMetrics({ register: this.#registry, eventLoopMonitoringPrecision: LOOP_PRECISION_MS });
    this.set("ambient_cni_build_info", 1, { version, nodejs: process.version, kernel: release() });
  }

  /** @throws Error for a name or label that the table does not have, or another type */
  count(name: string, labels: MetricLabels = {}, by = 1): void {
    const found = this.#find(name, labels);
    if (found.type !== "counter") throw wrongType(name, found.type, "count");
    found.of.inc(complete(found.row, labels), by);
  }

  /** @throws Error as `count` */
  set(name: string, value: number, labels: MetricLabels = {}): void {
    const found = this.#find(name, labels);
    if (found.type !== "gauge") throw wrongType(name, found.type, "set");
    found.of.set(complete(found.row, labels), value);
  }

  /** @throws Error as `count` */
  observe(name: string, value: number, labels: MetricLabels = {}): void {
    const found = this.#find(name, labels);
    if (found.type !== "histogram") throw wrongType(name, found.type, "observe");
    found.of.observe(complete(found.row, labels), value);
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  /** Before each exposition `measure` sets what is not set when it changes. */
  onScrape(measure: () => void): void {
    this.#measure = measure;
  }

  /** The exposition text of all metrics. */
  text(): Promise<string> {
    this.#measure();
    return this.#registry.metrics();
  }

  #find(name: string, labels: MetricLabels): Instrument {
    const found = this.#instruments.get(name);
    if (found === undefined) throw new Error(`metric ${name} is not in the table`);
    for (const label of Object.keys(labels)) {
      if (!found.row.labels.includes(label)) throw new Error(`metric ${name} has no label ${label}`);
    }
    return found;
  }
}

function instrument(row: MetricRow, registry: Registry): Instrument {
  const common = { name: row.name, help: row.help, labelNames: [...row.labels], registers: [registry] };
  switch (row.type) {
    case "counter":
      return { type: "counter", row, of: new Counter(common) };
    case "gauge":
      return { type: "gauge", row, of: new Gauge(common) };
    case "histogram":
      return { type: "histogram", row, of: new Histogram({ ...common, buckets: [...(row.buckets ?? [])] }) };
  }
}

/** Every label has a value: series of one metric with different sets of labels cannot be summed. */
function complete(row: MetricRow, labels: MetricLabels): Record<string, string> {
  return Object.fromEntries(row.labels.map((label) => [label, labels[label] ?? ""]));
}

function wrongType(name: string, type: string, verb: string): Error {
  return new Error(`metric ${name} is a ${type}: ${verb} does not apply`);
}
