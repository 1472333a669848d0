// SPDX-License-Identifier: Apache-2.0
// The picture of the dashboard is what Prometheus answered to the queries that the dashboard has now.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { alertsSvg } from "../../../scripts/docs/dashboard/alerts.ts";
import { chartSvg, pathOf, pieces } from "../../../scripts/docs/dashboard/chart.ts";
import { legendHeight, widthOf } from "../../../scripts/docs/dashboard/legend.ts";
import { dashboardSvg } from "../../../scripts/docs/dashboard/picture.ts";
import { type Recording, valuesOf } from "../../../scripts/docs/dashboard/recording.ts";
import { scaleFor, ticks } from "../../../scripts/docs/dashboard/unit.ts";
import { readDashboard } from "../../support/dashboard.ts";
import { ALERTS } from "../../support/monitoring.ts";

const IMAGES = fileURLToPath(new URL("../../../docs/images/", import.meta.url));
const recording = JSON.parse(readFileSync(`${IMAGES}dashboard.json`, "utf8")) as Recording;
const dashboard = readDashboard();

test("the picture is drawn from the recorded run, by the queries of now: else run scripts/docs/dashboard.ts again", async () => {
  await expect(dashboardSvg(dashboard, recording)).toMatchFileSnapshot(`${IMAGES}dashboard.svg`);
});

test("so is that of the alerts, of which some were firing, others pending, and others silent", async () => {
  await expect(alertsSvg(ALERTS, recording)).toMatchFileSnapshot(`${IMAGES}alerts.svg`);
  const states = recording.alerts.map(({ labels }) => labels.alertstate);
  expect(new Set(states)).toEqual(new Set(["pending", "firing"]));
  expect(() => alertsSvg(ALERTS.slice(0, 1), recording)).toThrow(/^no rule is called AmbientCni/);
});

test("every query of the recording has data, at every step of it", () => {
  const steps = recording.seconds / recording.step + 1;
  for (const { panel, refId, series } of recording.queries) {
    expect(series.length, `${panel} ${refId}`).toBeGreaterThan(0);
    for (const one of series) expect(valuesOf(one)).toHaveLength(steps);
    const known = series.flatMap(valuesOf).filter((value) => value !== undefined);
    expect(known.length, `${panel} ${refId}`).toBeGreaterThan(0);
  }
});

test("a picture of other queries than the recorded ones is not drawn", () => {
  const [panel, ...others] = dashboard.panels;
  if (panel?.type !== "stat") throw new Error("the first panel is no stat");
  const targets: typeof panel.targets = [{ ...panel.targets[0], expr: "count(up)" }];
  const changed = { ...dashboard, panels: [{ ...panel, targets }, ...others] };
  expect(() => dashboardSvg(changed, recording)).toThrow("Agents A: this query was not recorded");
});

test("numbers are written in the unit that suits them, with round marks from 0 to above the most", () => {
  expect(scaleFor("s", 0.04)).toEqual({ per: 1e-3, name: " ms" });
  expect(scaleFor("s", 150)).toEqual({ per: 60, name: " min" });
  expect(scaleFor("bytes", 70 * 2 ** 20)).toEqual({ per: 2 ** 20, name: " MiB" });
  expect(scaleFor("ops", 0)).toEqual({ per: 1, name: " ops/s" });
  expect(scaleFor("ops", 0.2)).toEqual({ per: 1, name: " ops/s" });
  expect(() => scaleFor("furlongs", 1)).toThrow("unit furlongs is not known");
  expect(ticks(7.2, 4)).toEqual([0, 2, 4, 6, 8]);
  expect(ticks(0.65, 4)).toEqual([0, 0.2, 0.4, 0.6, 0.8]);
  expect(ticks(0, 4)).toEqual([0, 0.25, 0.5, 0.75, 1]);
});

test("a line has holes where there was nothing, and a sample that is alone is a dot", () => {
  const { runs, dots } = pieces([1, 1, 1, 2, undefined, 5, undefined, undefined, 3, 4]);
  expect(dots).toEqual([{ index: 5, value: 5 }]);
  expect(
    runs.map((run) =>
      pathOf(
        run,
        (x) => x * 10,
        (y) => y,
      ),
    ),
  ).toEqual(["M0 1L20 1L30 2", "M80 3L90 4"]);
  const box = { x: 0, y: 0, width: 200, height: 150 };
  expect(chartSvg([], "short", 2, box)).toContain(">No data<");
  expect(chartSvg([{ name: "<b>", values: [1, 2] }], "short", 2, box)).toContain("&lt;b&gt;");
});

test("a legend takes as many lines as it needs", () => {
  expect(legendHeight([], 100)).toBe(0);
  const one = legendHeight(["a"], 100);
  expect(legendHeight(["a", "b"], 100)).toBe(one);
  expect(legendHeight(["a".repeat(15), "b".repeat(15)], 100)).toBe(2 * one);
  expect(widthOf("AAAA", 10)).toBeGreaterThan(widthOf("aaaa", 10));
});
