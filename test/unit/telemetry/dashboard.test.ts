// SPDX-License-Identifier: Apache-2.0
// The dashboard is one that Grafana takes: by its model's fields, and by what its panels must be to each other.
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { DASHBOARD, type Panel, readDashboard } from "../../support/dashboard.ts";

const document = readFileSync(DASHBOARD, "utf8");
const { panels, templating } = readDashboard(document);

const overlap = ({ gridPos: a }: Panel, { gridPos: b }: Panel) =>
  a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h;

test("every panel has an id and a title of its own, and every query a name of its own in its panel", () => {
  expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length);
  expect(new Set(panels.map(({ title }) => title)).size).toBe(panels.length);
  for (const panel of panels) {
    if (panel.type === "row") continue;
    const names = panel.targets.map(({ refId }) => refId);
    expect(new Set(names).size, panel.title).toBe(names.length);
  }
});

test("no panel lies on another one, none hangs in the air, and they are listed as they are read", () => {
  for (const [index, panel] of panels.entries()) {
    for (const other of panels.slice(index + 1))
      expect(overlap(panel, other), `${panel.title}: ${other.title}`).toBe(false);
    const { x, y, w } = panel.gridPos;
    const below = panels.filter(
      ({ gridPos: other }) => other.y + other.h === y && other.x < x + w && x < other.x + other.w,
    );
    expect(y === 0 || below.length > 0, panel.title).toBe(true);
  }
  const places = panels.map(({ gridPos: { x, y } }) => y * 24 + x);
  expect(places).toEqual([...places].sort((a, b) => a - b));
});

test("queries ask by the variables that there are, and each variable is asked by", () => {
  const names = templating.list.map(({ name }) => name);
  expect(names).toEqual(["datasource", "job", "instance"]);
  for (const panel of panels) {
    if (panel.type === "row") continue;
    for (const { expr } of panel.targets) {
      const asked = [...expr.matchAll(/\$(\w+)/g)].map(([, name = ""]) => name);
      expect(asked, panel.title).toEqual(expect.arrayContaining(["job", "instance"]));
      for (const name of asked) expect([...names, "__rate_interval"], panel.title).toContain(name);
      // A rate over a fixed time has holes where scrapes are rarer; the last hour's sum is no rate.
      for (const [, range] of expr.matchAll(/\[([^\]]+)\]/g)) expect(["$__rate_interval", "1h"]).toContain(range);
    }
  }
  for (const variable of templating.list) {
    if (variable.type === "query") expect(variable.definition).toBe(variable.query.query);
  }
});

test("a table's columns are named as its queries are", () => {
  for (const panel of panels) {
    if (panel.type !== "table") continue;
    const columns = panel.targets.map(({ refId }) => `Value #${refId}`);
    expect(Object.keys(panel.transformations[1].options.renameByName)).toEqual(columns);
  }
});

test("a number of now does not show what is over: what is counted is there as 0", () => {
  for (const panel of panels) {
    if (panel.type !== "stat") continue;
    // count() of nothing is nothing, and the panel would go on showing the last one of its hour.
    for (const { expr } of panel.targets) expect(expr, panel.title).not.toMatch(/count\([^)]*[=<>]=? /);
  }
});

test.each([
  ["a misspelt field", '"legendFormat"', '"legendformat"', /targets\.0\.legend/],
  ["a panel that Grafana has no more", '"type": "timeseries"', '"type": "graph"', /panels\.\d+\.type/],
  ["a unit that there isn't", '"unit": "reqps"', '"unit": "requests"', /unit/],
  ["somebody's own data source", '"uid": "$', '"uid": "', /datasource\.uid/],
  ["a panel that leaves the grid", '"x": 20', '"x": 21', /wider than the grid/],
])("%s is found", (_name, was, is, reason) => {
  expect(document).toContain(was);
  expect(() => readDashboard(document.replace(was, is))).toThrow(reason);
});
