// SPDX-License-Identifier: Apache-2.0
import { escaped } from "../page.ts";
import { colourOf, legendHeight, legendSvg, widthOf } from "./legend.ts";
import { scaleFor, ticks } from "./unit.ts";

export interface Box {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

export interface Line {
  readonly name: string;
  /** One for each step; undefined where there was none. */
  readonly values: readonly (number | undefined)[];
}

const SMALL = 11;
const SOFT = "#5b6675";
const GRID = "#dde2e8";
const TIME_HEIGHT = 18;
/** Half of the last time's text. */
const RIGHT = 14;
/** Seconds between two marks of the time axis. */
const MARK_SECONDS = 60;

const round = (value: number): number => Math.round(value * 10) / 10;

/** Lines over time with their axes, and a legend below. */
export function chartSvg(lines: readonly Line[], unit: string, step: number, box: Box): string {
  if (lines.length === 0) {
    const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
    return `<text x="${x}" y="${y}" text-anchor="middle" font-size="12" fill="${SOFT}">No data</text>`;
  }
  const names = lines.map(({ name }) => name);
  const legend = legendHeight(names, box.width);
  const most = Math.max(0, ...lines.flatMap(({ values }) => values.filter((value) => value !== undefined)));
  const { per, name: unitName } = scaleFor(unit, most);
  const height = box.height - legend - TIME_HEIGHT;
  const marks = ticks(most / per, height > 90 ? 4 : 2);
  const top = marks.at(-1) ?? 1;
  const texts = marks.map((mark) => `${mark}${unitName}`);
  const left = Math.ceil(Math.max(...texts.map((text) => widthOf(text, SMALL)))) + 6;
  const plot: Box = { x: box.x + left, y: box.y, width: box.width - left - RIGHT, height };
  const count = Math.max(...lines.map(({ values }) => values.length)) - 1;
  const atX = (index: number) => round(plot.x + (index / count) * plot.width);
  const atY = (value: number) => round(plot.y + plot.height - (value / per / top) * plot.height);

  const parts = marks.map((mark, index) => {
    const y = atY(mark * per);
    return `<path d="M${plot.x} ${y}h${round(plot.width)}" stroke="${GRID}"/><text x="${plot.x - 6}" y="${y + 4}" text-anchor="end" font-size="${SMALL}" fill="${SOFT}">${escaped(texts[index] ?? "")}</text>`;
  });
  for (let seconds = 0; seconds <= count * step; seconds += MARK_SECONDS) {
    const text = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
    parts.push(
      `<text x="${atX(seconds / step)}" y="${plot.y + height + 14}" text-anchor="middle" font-size="${SMALL}" fill="${SOFT}">${text}</text>`,
    );
  }
  for (const [index, { values }] of lines.entries()) {
    const colour = colourOf(index);
    const { runs, dots } = pieces(values);
    const line = runs.map((run) => pathOf(run, atX, atY)).join("");
    const area = runs.map((run) => `${pathOf(run, atX, atY)}V${atY(0)}H${atX(run[0]?.index ?? 0)}Z`).join("");
    if (line !== "") {
      parts.push(`<path d="${area}" fill="${colour}" fill-opacity="0.1"/>`);
      parts.push(`<path d="${line}" fill="none" stroke="${colour}" stroke-width="1.5" stroke-linejoin="round"/>`);
    }
    for (const { index: at, value } of dots) {
      parts.push(`<circle cx="${atX(at)}" cy="${atY(value)}" r="2" fill="${colour}"/>`);
    }
  }
  parts.push(legendSvg(names, box.x, box.y + height + TIME_HEIGHT, box.width));
  return parts.join("\n");
}

export interface Sample {
  readonly index: number;
  readonly value: number;
}

/** Samples that follow each other without a hole; and those that are alone. */
export function pieces(values: readonly (number | undefined)[]): {
  readonly runs: readonly (readonly Sample[])[];
  readonly dots: readonly Sample[];
} {
  const all: Sample[][] = [];
  let run: Sample[] = [];
  for (const [index, value] of values.entries()) {
    if (value === undefined) run = [];
    else {
      if (run.length === 0) all.push(run);
      run.push({ index, value });
    }
  }
  return { runs: all.filter(({ length }) => length > 1), dots: all.flatMap((one) => (one.length === 1 ? one : [])) };
}

/** Without the samples in the middle of a level piece. */
export function pathOf(run: readonly Sample[], atX: (index: number) => number, atY: (value: number) => number): string {
  const kept = run.filter(({ value }, index) => run[index - 1]?.value !== value || run[index + 1]?.value !== value);
  return kept.map(({ index, value }, at) => `${at === 0 ? "M" : "L"}${atX(index)} ${atY(value)}`).join("");
}
