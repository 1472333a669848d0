// SPDX-License-Identifier: Apache-2.0
// Queries of the dashboard and the alerts, and as much PromQL as tells which metrics and labels they name.
import { readFileSync } from "node:fs";
import { parse } from "yaml";
import { readDashboard } from "./dashboard.ts";

export interface Query {
  readonly name: string;
  readonly expr: string;
  readonly legend?: string;
}

export interface AlertRule extends Query {
  /** How long the expression must be true: `5m`. */
  readonly for: string;
}

interface Rules {
  readonly groups: readonly {
    readonly rules: readonly {
      readonly alert: string;
      readonly expr: string;
      readonly for: string;
    }[];
  }[];
}

/** From the repository's root. */
export const RULES = "install/monitoring/alerts.yaml";

const rules = parse(readFileSync(RULES, "utf8")) as Rules;

export const ALERTS: readonly AlertRule[] = rules.groups.flatMap(({ rules: all }) =>
  all.map(({ alert, ...rule }) => ({ ...rule, name: alert })),
);

export const PANELS: readonly Query[] = readDashboard().panels.flatMap((panel) =>
  panel.type === "row"
    ? []
    : panel.targets.map((target) => ({
        name: `${panel.title} ${target.refId}`,
        expr: target.expr,
        legend: "legendFormat" in target ? target.legendFormat : "",
      })),
);

/** A panel's query as Grafana sends it with all nodes chosen, rates being over so many seconds. */
export function asGrafana(expr: string, rateSeconds: number): string {
  return expr.replaceAll(/\$(?:job|instance)\b/g, ".*").replaceAll("$__rate_interval", `${rateSeconds}s`);
}

export interface Selector {
  readonly metric: string;
  readonly labels: readonly string[];
}

/** Metrics that an expression reads, with the labels that it selects by. */
export function selectorsOf(expr: string): readonly Selector[] {
  const outside = expr.replace(/\b(?:by|on|without|ignoring) \([^)]*\)/g, "");
  return [...outside.matchAll(/\b([a-z]\w*_\w+)\b(?!\s*\()(?:\{([^}]*)\})?/g)]
    .filter(([, , selection], index, all) => selection !== undefined || !isInBraces(outside, all[index]?.index ?? 0))
    .map(([, metric = "", selection = ""]) => ({
      metric,
      labels: [...selection.matchAll(/(\w+)\s*(?:=~|!~|!=|=)/g)].map(([, label = ""]) => label),
    }));
}

/** What Prometheus adds to every series, and to histograms. */
const ADDED = ["job", "instance"];

/** Names of the expression that no series has. */
export function unknownIn(expr: string, known: ReadonlyMap<string, readonly string[]>): readonly string[] {
  const wrong: string[] = [];
  const there = new Set<string>(ADDED);
  for (const { metric, labels } of selectorsOf(expr)) {
    const [base = "", part] = known.has(metric) ? [metric] : metric.split(/_(?=(?:bucket|sum|count)$)/);
    const own = known.get(base);
    if (own === undefined || (part !== undefined && !base.endsWith("_seconds"))) {
      wrong.push(metric);
      continue;
    }
    const all = [...own, ...ADDED, ...(part === "bucket" ? ["le"] : [])];
    for (const label of all) there.add(label);
    for (const label of labels) if (!all.includes(label)) wrong.push(`${metric}: ${label}`);
  }
  const groups = [...expr.matchAll(/\b(?:by|on) \(([^)]*)\)/g)].flatMap(([, names = ""]) => names.split(/, */));
  if (wrong.length === 0) wrong.push(...groups.filter((label) => !there.has(label)).map((label) => `by ${label}`));
  return wrong;
}

function isInBraces(text: string, at: number): boolean {
  return text.lastIndexOf("{", at) > text.lastIndexOf("}", at);
}
