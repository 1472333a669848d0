// SPDX-License-Identifier: Apache-2.0
import type { Dashboard, Panel } from "../../../test/support/dashboard.ts";
import { escaped } from "../page.ts";
import { type Box, chartSvg, type Line, pathOf, pieces } from "./chart.ts";
import { widthOf } from "./legend.ts";
import { type RecordedQuery, type Recording, valuesOf } from "./recording.ts";

const WIDTH = 1080;
const COLUMNS = 24;
/** Of one unit of the grid. */
const UNIT = 29;
const GAP = 6;
const HEAD = 64;
const TITLE = 26;
const TEXT = "#1c2430";
const SOFT = "#5b6675";
const BORDER = "#dde2e8";

const THRESHOLD_COLOURS: Readonly<Record<string, string>> = { text: TEXT, green: "#2e8b57", red: "#b83232" };

/** The dashboard's panels at their places, with what a recording has for them. @throws Error for another dashboard's */
export function dashboardSvg(dashboard: Dashboard, recording: Recording): string {
  const rows = Math.max(...dashboard.panels.map(({ gridPos: { y, h } }) => y + h));
  const height = HEAD + rows * UNIT + GAP;
  const title = `Dashboard ${dashboard.title}`;
  const panels = dashboard.panels.map((panel) => panelSvg(panel, recording));
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="${escaped(`${title}; ${recording.note}`)}" font-family="system-ui, sans-serif" font-size="13" fill="${TEXT}">
<rect width="${WIDTH}" height="${height}" fill="#ffffff"/>
<text x="${GAP}" y="26" font-size="17" font-weight="600">${escaped(title)}</text>
<text x="${GAP}" y="48" font-size="12" fill="${SOFT}">${escaped(recording.note)}</text>
${panels.join("\n")}
</svg>
`;
}

function panelSvg(panel: Panel, recording: Recording): string {
  const { x, y, w, h } = panel.gridPos;
  const column = WIDTH / COLUMNS;
  const box: Box = {
    x: x * column + GAP / 2,
    y: HEAD + y * UNIT + GAP / 2,
    width: w * column - GAP,
    height: h * UNIT - GAP,
  };
  // Bold letters are a tenth wider.
  const size = Math.min(13, Math.floor(((box.width - 14) / (widthOf(panel.title, 1) * 1.1)) * 2) / 2);
  const title = `<text x="${box.x + 8}" y="${box.y + 18}" font-size="${size}" font-weight="600">${escaped(panel.title)}</text>`;
  if (panel.type === "row") {
    return `<text x="${box.x + 2}" y="${box.y + 18}" font-size="14" font-weight="600" fill="${SOFT}">${escaped(panel.title)}</text>`;
  }
  const frame = `<rect x="${box.x}" y="${box.y}" width="${box.width}" height="${box.height}" rx="3" fill="none" stroke="${BORDER}"/>`;
  const inner: Box = {
    x: box.x + 10,
    y: box.y + TITLE + 8,
    width: box.width - 20,
    height: box.height - TITLE - 14,
  };
  return `${frame}\n${title}\n${contentSvg(panel, recording, inner)}`;
}

function contentSvg(panel: Exclude<Panel, { type: "row" }>, recording: Recording, box: Box): string {
  const answers = panel.targets.map(({ refId, expr }) => {
    const found = recording.queries.find((each) => each.panel === panel.title && each.refId === refId);
    if (found?.expr !== expr) throw new Error(`${panel.title} ${refId}: this query was not recorded`);
    return found;
  });
  switch (panel.type) {
    case "stat":
      return statSvg(panel, answers, box);
    case "table":
      return tableSvg(panel, answers, box);
    case "timeseries": {
      const lines = panel.targets.flatMap(({ legendFormat }, index) =>
        (answers[index]?.series ?? []).map(
          (series): Line => ({ name: named(legendFormat, series.labels), values: valuesOf(series) }),
        ),
      );
      return chartSvg(
        // A quantile of a time in which nothing happened is no number.
        lines.filter(({ values }) => values.some((value) => value !== undefined)),
        panel.fieldConfig.defaults.unit,
        recording.step,
        box,
      );
    }
  }
}

const named = (format: string, labels: Readonly<Record<string, string>>): string =>
  format.replaceAll(/\{\{(\w+)\}\}/g, (_, label: string) => labels[label] ?? "");

/** The last number, with its past below it. */
function statSvg(
  { fieldConfig: { defaults } }: Extract<Panel, { type: "stat" }>,
  [answer]: readonly RecordedQuery[],
  box: Box,
): string {
  const [series] = answer?.series ?? [];
  const values = series === undefined ? [] : valuesOf(series);
  const last = values.findLast((value) => value !== undefined);
  const step = defaults.thresholds.steps.findLast(({ value }) => value === null || (last ?? 0) >= value);
  const colour = THRESHOLD_COLOURS[step?.color ?? "text"] ?? TEXT;
  const text = last === undefined ? defaults.noValue : String(Math.round(last * 10) / 10);
  const most = Math.max(1, ...values.filter((value) => value !== undefined));
  const past = { top: box.y + 34, bottom: box.y + box.height };
  const atX = (index: number) => Math.round((box.x + (index / (values.length - 1)) * box.width) * 10) / 10;
  const atY = (value: number) => Math.round((past.bottom - (value / most) * (past.bottom - past.top)) * 10) / 10;
  const { runs } = pieces(values);
  const area = runs.map((run) => `${pathOf(run, atX, atY)}V${past.bottom}H${atX(run[0]?.index ?? 0)}Z`).join("");
  const line = runs.map((run) => pathOf(run, atX, atY)).join("");
  return `<path d="${area}" fill="${colour}" fill-opacity="0.1"/>
<path d="${line}" fill="none" stroke="${colour}" stroke-width="1.2"/>
<text x="${box.x}" y="${box.y + 22}" font-size="26" font-weight="600" fill="${colour}">${escaped(text)}</text>`;
}

/** Rows of the queries' last answers, merged by the labels that they share, as the panel's transformations do. */
function tableSvg(
  { transformations: [, { options }] }: Extract<Panel, { type: "table" }>,
  answers: readonly RecordedQuery[],
  box: Box,
): string {
  const rows: Record<string, string>[] = [];
  for (const { refId, series } of answers) {
    const column = options.renameByName[`Value #${refId}`] ?? "Value";
    for (const each of series) {
      const last = valuesOf(each).at(-1);
      if (last === undefined) continue;
      const matching = rows.filter((row) =>
        Object.entries(each.labels).every(([label, value]) => (row[label] ?? value) === value),
      );
      if (matching.length === 0) rows.push({ ...each.labels, [column]: String(last) });
      for (const row of matching) row[column] = String(last);
    }
  }
  const columns = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const order = (row: Record<string, string>) => `${row.instance} ${row.engine}`;
  rows.sort((a, b) => (order(a) < order(b) ? -1 : 1));
  const widths = columns.map((column) => 24 + widthOf(longest([column, ...rows.map((row) => row[column] ?? "")]), 13));
  const cell = (text: string, row: number, column: number, extra: string) => {
    const left = widths.slice(0, column).reduce((sum, width) => sum + width, box.x);
    return `<text x="${Math.round(left)}" y="${box.y + 12 + row * 24}"${extra}>${escaped(text)}</text>`;
  };
  const head = columns.map((column, index) => cell(column, 0, index, ` font-weight="600" fill="${SOFT}"`));
  const body = rows.flatMap((row, at) => [
    `<path d="M${box.x} ${box.y + 20 + at * 24}h${box.width}" stroke="${BORDER}"/>`,
    ...columns.map((column, index) => cell(row[column] ?? "", at + 1, index, "")),
  ]);
  return [...head, ...body].join("\n");
}

const longest = (texts: readonly string[]): string => texts.reduce((a, b) => (b.length > a.length ? b : a), "");
