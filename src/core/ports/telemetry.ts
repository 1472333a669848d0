// SPDX-License-Identifier: Apache-2.0
// How every part logs and counts.

export type LogFields = Readonly<Record<string, unknown>>;

export interface Logger {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
  /** Logger of another scope (upstream's word): `cni-agent`, `zds`, `kube`, ... */
  child(scope: string): Logger;
}

export type MetricLabels = Readonly<Record<string, string>>;

export interface Metrics {
  count(name: string, labels?: MetricLabels, by?: number): void;
  set(name: string, value: number, labels?: MetricLabels): void;
  /** Seconds, as Prometheus wants durations. */
  observe(name: string, value: number, labels?: MetricLabels): void;
}
