// SPDX-License-Identifier: Apache-2.0
import { escaped } from "./page.ts";

export interface BarGroup {
  readonly name: string;
  /** One for each series. */
  readonly values: readonly number[];
}

export interface Bars {
  /** What is shown, for who can't see it; with the machine it was measured on. */
  readonly title: string;
  readonly note: string;
  readonly unit: string;
  readonly series: readonly string[];
  readonly groups: readonly BarGroup[];
}

const WIDTH = 760;
const LEFT = 110;
const BAR = 20;
const GAP = 18;
const TOP = 70;
const COLOURS = ["#0b62b8", "#8fbfe8", "#c58a1b"];

/** Horizontal bars as an SVG, with their values written beside them. */
export function barsSvg({ title, note, unit, series, groups }: Bars): string {
  const room = WIDTH - LEFT - 110;
  const most = Math.max(...groups.flatMap(({ values }) => values));
  const parts: string[] = [];
  let y = TOP;
  for (const { name, values } of groups) {
    const middle = y + (values.length * BAR) / 2 + 5;
    parts.push(`<text x="${LEFT - 12}" y="${middle}" text-anchor="end" font-weight="600">${escaped(name)}</text>`);
    for (const [index, value] of values.entries()) {
      const length = Math.max(1, Math.round((value / most) * room));
      const colour = COLOURS[index % COLOURS.length] ?? "";
      parts.push(`<rect x="${LEFT}" y="${y}" width="${length}" height="${BAR - 3}" fill="${colour}"/>`);
      parts.push(
        `<text x="${LEFT + length + 8}" y="${y + 13}" font-size="12">${value.toFixed(2)} ${escaped(unit)}</text>`,
      );
      y += BAR;
    }
    y += GAP;
  }
  const legend = series.map((name, index) => {
    const x = LEFT + index * 90;
    return `<rect x="${x}" y="42" width="12" height="12" fill="${COLOURS[index] ?? ""}"/><text x="${x + 18}" y="53" font-size="13">${escaped(name)}</text>`;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${y + 20}" role="img" aria-label="${escaped(`${title}; ${note}`)}" font-family="system-ui, sans-serif" font-size="14" fill="#1c2430">
<rect width="${WIDTH}" height="${y + 20}" fill="#ffffff"/>
<text x="20" y="26" font-size="15" font-weight="600">${escaped(title)}</text>
${legend.join("\n")}
${parts.join("\n")}
<text x="20" y="${y + 6}" font-size="12" fill="#5b6675">${escaped(note)}</text>
</svg>
`;
}
