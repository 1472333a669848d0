// SPDX-License-Identifier: Apache-2.0
// The dashboard as Grafana's classic model has it (schemaVersion 38: Grafana 10), strictly: a field that is not named
// here would be passed over by Grafana without a word.
import { readFileSync } from "node:fs";
import * as v from "valibot";

/** Whichever one the reader chooses. */
const source = v.strictObject({
  type: v.literal("prometheus"),
  uid: v.pipe(v.string(), v.regex(/^\$\{datasource\}$/)),
});
const count = v.pipe(v.number(), v.integer(), v.minValue(0));
const text = v.pipe(v.string(), v.nonEmpty());

/** The grid has 24 columns. */
const gridPos = v.pipe(
  v.strictObject({
    x: count,
    y: count,
    w: v.pipe(count, v.minValue(1)),
    h: v.pipe(count, v.minValue(1)),
  }),
  v.check(({ x, w }) => x + w <= 24, "wider than the grid"),
);

const target = {
  refId: v.pipe(v.string(), v.regex(/^[A-Z]$/)),
  datasource: source,
  expr: text,
};

const common = { id: v.pipe(count, v.minValue(1)), title: text, gridPos };
const drawn = { ...common, description: v.string(), datasource: source };

const thresholds = v.strictObject({
  mode: v.literal("absolute"),
  /** The first one holds from minus infinity on. */
  steps: v.pipe(
    v.array(v.strictObject({ color: v.picklist(["text", "green", "red"]), value: v.nullable(v.number()) })),
    v.check(
      (steps) => steps.every(({ value }, index) => (index === 0) === (value === null)),
      "only the first step has no value",
    ),
  ),
});

const stat = v.strictObject({
  ...drawn,
  type: v.literal("stat"),
  targets: v.tuple([v.strictObject(target)]),
  options: v.strictObject({
    colorMode: v.literal("value"),
    graphMode: v.literal("area"),
    reduceOptions: v.strictObject({
      calcs: v.tuple([v.literal("lastNotNull")]),
      fields: v.literal(""),
      values: v.literal(false),
    }),
  }),
  fieldConfig: v.strictObject({ defaults: v.strictObject({ noValue: text, thresholds }), overrides: v.tuple([]) }),
});

const timeseries = v.strictObject({
  ...drawn,
  type: v.literal("timeseries"),
  targets: v.pipe(v.array(v.strictObject({ ...target, legendFormat: text })), v.minLength(1)),
  options: v.strictObject({
    legend: v.strictObject({ displayMode: v.literal("list"), placement: v.literal("bottom") }),
    tooltip: v.strictObject({ mode: v.literal("multi"), sort: v.literal("desc") }),
  }),
  fieldConfig: v.strictObject({
    defaults: v.strictObject({
      unit: v.picklist(["short", "s", "ops", "reqps", "percentunit", "bytes"]),
      min: v.literal(0),
      custom: v.strictObject({ fillOpacity: v.literal(10), showPoints: v.literal("never") }),
    }),
    overrides: v.tuple([]),
  }),
});

const table = v.strictObject({
  ...drawn,
  type: v.literal("table"),
  targets: v.array(v.strictObject({ ...target, format: v.literal("table"), instant: v.literal(true) })),
  transformations: v.tuple([
    v.strictObject({ id: v.literal("merge"), options: v.strictObject({}) }),
    v.strictObject({
      id: v.literal("organize"),
      options: v.strictObject({
        excludeByName: v.record(v.string(), v.boolean()),
        renameByName: v.record(v.string(), text),
      }),
    }),
  ]),
  options: v.strictObject({ showHeader: v.literal(true) }),
  fieldConfig: v.strictObject({ defaults: v.strictObject({}), overrides: v.tuple([]) }),
});

/** Not collapsed: what belongs to it follows it, and is not inside it. */
const row = v.strictObject({
  ...common,
  type: v.literal("row"),
  collapsed: v.literal(false),
  panels: v.tuple([]),
});

const query = v.strictObject({
  name: text,
  label: text,
  type: v.literal("query"),
  datasource: source,
  query: v.strictObject({ query: text, refId: text }),
  definition: text,
  /** 2: whenever the time range changes. */
  refresh: v.literal(2),
  includeAll: v.literal(true),
  multi: v.literal(true),
  allValue: v.literal(".*"),
  current: v.strictObject({ selected: v.literal(true), text: v.literal("All"), value: v.literal("$__all") }),
  sort: v.literal(1),
});

const chosen = v.strictObject({
  name: v.literal("datasource"),
  label: text,
  type: v.literal("datasource"),
  query: v.literal("prometheus"),
  current: v.strictObject({}),
  refresh: v.literal(1),
});

export const dashboardSchema = v.strictObject({
  title: text,
  /** Of its address: at most 40 letters, digits, dashes. */
  uid: v.pipe(v.string(), v.regex(/^[\w-]{1,40}$/)),
  tags: v.array(text),
  schemaVersion: v.literal(38),
  version: count,
  editable: v.boolean(),
  refresh: v.pipe(v.string(), v.regex(/^\d+[smh]$/)),
  time: v.strictObject({ from: v.pipe(v.string(), v.regex(/^now-\d+[mhd]$/)), to: v.literal("now") }),
  timezone: v.literal(""),
  graphTooltip: v.literal(1),
  templating: v.strictObject({ list: v.tuple([chosen, query, query]) }),
  annotations: v.strictObject({ list: v.tuple([]) }),
  links: v.tuple([]),
  panels: v.array(v.variant("type", [stat, timeseries, table, row])),
});

export type Dashboard = v.InferOutput<typeof dashboardSchema>;
export type Panel = Dashboard["panels"][number];
export type TimeSeriesPanel = v.InferOutput<typeof timeseries>;

/** From the repository's root. */
export const DASHBOARD = "install/monitoring/grafana-dashboard.json";

/** @throws Error that names the first field that Grafana's model does not have */
export function readDashboard(document: string = readFileSync(DASHBOARD, "utf8")): Dashboard {
  const { success, output, issues } = v.safeParse(dashboardSchema, JSON.parse(document));
  if (success) return output;
  const [first] = issues;
  throw new Error(`${DASHBOARD}: ${v.getDotPath(first) ?? ""}: ${first.message}`);
}
