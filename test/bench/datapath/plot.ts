// SPDX-License-Identifier: Apache-2.0
// Bars of the medians with whiskers from minimum to maximum, as SVG. Pure.
import { DIRECTIONS, type Direction } from "./ground.ts";
import type { Result } from "./report.ts";
import { METRICS, type MetricMeaning, type Summary } from "./summary.ts";
import { TITLES, type VariantName } from "./variants.ts";

const SHOWN: readonly string[] = ["connections", "bulk", "p50", "p99", "cpu"];

/** Distinct in print, in both colour schemes, and to colour-blind readers. */
const COLOURS: Readonly<Record<VariantName, string>> = {
  none: "#8c8c8c",
  ebpf: "#0e8a7d",
  nftables: "#3b76c4",
  iptables: "#8a63b8",
  upstream: "#d0702a",
  monitored: "#74b8ae",
};

const LABELS = 168;
const BARS = 250;
const NUMBERS = 62;
const PANEL_WIDTH = LABELS + BARS + NUMBERS;
const GAP = 28;
const ROW = 20;
const TITLE = 26;
const AXIS = 30;
const TOP = 64;

const STYLE = `
text { font: 12px system-ui, sans-serif; fill: #24292f; }
.head { font-size: 15px; font-weight: 600; }
.title { font-weight: 600; }
.small { font-size: 11px; fill: #57606a; }
.line { stroke: #8c959f; stroke-width: 1; }
.grid { stroke: #8c959f; stroke-opacity: 0.3; }
.whisker { stroke: #24292f; stroke-width: 1.5; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .small { fill: #9da7b1; }
  .whisker { stroke: #e6edf3; }
}`;

/** The whole result, one column per direction, one panel per metric. */
export function plot(result: Result): string {
  const parts: string[] = [];
  const metrics = METRICS.filter(({ metric }) => SHOWN.includes(metric));
  let height = TOP;
  for (const meaning of metrics) {
    let tallest = 0;
    for (const [column, direction] of DIRECTIONS.entries()) {
      const rows = result.summaries.filter((row) => row.metric === meaning.metric && row.direction === direction);
      if (rows.length === 0) continue;
      parts.push(panel(column * (PANEL_WIDTH + GAP), height, direction, meaning, rows));
      tallest = Math.max(tallest, TITLE + rows.length * ROW + AXIS);
    }
    height += tallest + 14;
  }
  const width = 2 * PANEL_WIDTH + GAP;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img">`,
    `<title>Datapath benchmark, IPv${result.family}</title>`,
    `<style>${STYLE}</style>`,
    text(0, 20, `Ways to a proxy inside the pod, IPv${result.family}`, "head"),
    text(0, 40, `Bars: medians of ${result.rounds} rounds. Whiskers: minimum and maximum. ${result.machine}`, "small"),
    ...parts,
    "</svg>",
    "",
  ].join("\n");
}

function panel(
  left: number,
  top: number,
  direction: Direction,
  meaning: MetricMeaning,
  rows: readonly Summary[],
): string {
  const step = niceStep(Math.max(...rows.map(({ max }) => max)));
  const end = step * Math.ceil(Math.max(...rows.map(({ max }) => max)) / step);
  const x = (value: number) => round(left + LABELS + (value / end) * BARS);
  const first = top + TITLE;
  const last = first + rows.length * ROW;
  const parts = [text(left, top + 14, `${direction}: ${meaning.title} (${meaning.better} is better)`, "title")];
  for (let tick = 0; tick <= end + step / 2; tick += step) {
    parts.push(
      line(x(tick), first - 3, x(tick), last + 3, "grid"),
      text(x(tick), last + 16, tickText(tick, step), "small", "middle"),
    );
  }
  parts.push(line(x(0), first - 3, x(0), last + 3, "line"));
  parts.push(text(left + PANEL_WIDTH, last + 16, meaning.unit, "small", "end"));
  for (const [index, row] of rows.entries()) {
    const y = first + index * ROW;
    const middle = y + ROW / 2 - 1;
    parts.push(
      text(left + LABELS - 8, middle + 4, TITLES[row.variant], "", "end"),
      `<rect x="${x(0)}" y="${y + 2}" width="${round(x(row.median) - x(0))}" height="${ROW - 6}" fill="${COLOURS[row.variant]}"/>`,
      line(x(row.min), middle, x(row.max), middle, "whisker"),
      line(x(row.min), middle - 4, x(row.min), middle + 4, "whisker"),
      line(x(row.max), middle - 4, x(row.max), middle + 4, "whisker"),
      text(left + PANEL_WIDTH, middle + 4, row.median.toFixed(meaning.digits), "", "end"),
    );
  }
  return parts.join("\n");
}

/** 1, 2 or 5 times a power of ten, for at most five ticks. */
function niceStep(max: number): number {
  const power = 10 ** Math.floor(Math.log10(max / 5));
  return power * ([1, 2, 5, 10].find((factor) => max / (power * factor) <= 5) ?? 10);
}

function tickText(tick: number, step: number): string {
  return tick.toFixed(Math.max(0, -Math.floor(Math.log10(step))));
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}

function text(x: number, y: number, content: string, style: string, anchor = "start"): string {
  const safe = content.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
  return `<text x="${x}" y="${y}" class="${style}" text-anchor="${anchor}">${safe}</text>`;
}

function line(x1: number, y1: number, x2: number, y2: number, style: string): string {
  return `<line x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}" class="${style}"/>`;
}
