// SPDX-License-Identifier: Apache-2.0
// A logger and metrics that remember.
import type { LogFields, Logger, MetricLabels, Metrics } from "../../src/core/ports/telemetry.ts";

export interface LogLine {
  readonly level: "debug" | "info" | "warn" | "error";
  readonly scope: string;
  readonly message: string;
  readonly fields: LogFields;
}

export class LogRecorder implements Logger {
  constructor(
    readonly lines: LogLine[] = [],
    private readonly scope = "default",
  ) {}
  debug(message: string, fields: LogFields = {}): void {
    this.lines.push({ level: "debug", scope: this.scope, message, fields });
  }
  info(message: string, fields: LogFields = {}): void {
    this.lines.push({ level: "info", scope: this.scope, message, fields });
  }
  warn(message: string, fields: LogFields = {}): void {
    this.lines.push({ level: "warn", scope: this.scope, message, fields });
  }
  error(message: string, fields: LogFields = {}): void {
    this.lines.push({ level: "error", scope: this.scope, message, fields });
  }
  child(scope: string): LogRecorder {
    return new LogRecorder(this.lines, scope);
  }
}

export class MetricRecorder implements Metrics {
  readonly counts = new Map<string, number>();
  readonly gauges = new Map<string, number>();
  readonly observations: { readonly name: string; readonly value: number; readonly labels: MetricLabels }[] = [];

  count(name: string, labels: MetricLabels = {}, by = 1): void {
    const key = `${name}${JSON.stringify(labels)}`;
    this.counts.set(key, (this.counts.get(key) ?? 0) + by);
  }
  set(name: string, value: number, labels: MetricLabels = {}): void {
    this.gauges.set(`${name}${JSON.stringify(labels)}`, value);
  }
  observe(name: string, value: number, labels: MetricLabels = {}): void {
    this.observations.push({ name, value, labels });
  }
}
