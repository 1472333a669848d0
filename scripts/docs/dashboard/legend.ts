// SPDX-License-Identifier: Apache-2.0
import { escaped } from "../page.ts";

const COLOURS = [
  ...["#0b62b8", "#c58a1b", "#2e8b57", "#b83232", "#7a4fb5", "#1d8a99", "#8fbfe8", "#c0589a", "#7d8a1d", "#5b6675"],
  ...["#3d4f8a", "#e0a3a3"],
];

export const colourOf = (index: number): string => COLOURS[index % COLOURS.length] ?? "";

export const LEGEND_LINE = 15;
const FONT = 11;
const SIGN = 14;
const GAP = 12;

/** About how wide a text is, of a font that is not known here. */
export function widthOf(text: string, size: number): number {
  const wide = text.match(/[A-Z_mw%]/g)?.length ?? 0;
  return (text.length * 0.56 + wide * 0.15) * size;
}

/** Names by their lines, each at its place: as many in a line as there is room for. */
function placed(names: readonly string[], width: number): readonly { readonly x: number; readonly line: number }[] {
  let x = 0;
  let line = 0;
  return names.map((name) => {
    const needed = SIGN + widthOf(name, FONT);
    if (x > 0 && x + needed > width) {
      x = 0;
      line += 1;
    }
    const at = { x, line };
    x += needed + GAP;
    return at;
  });
}

/** Height that the legend takes. */
export function legendHeight(names: readonly string[], width: number): number {
  const last = placed(names, width).at(-1);
  return last === undefined ? 0 : (last.line + 1) * LEGEND_LINE;
}

/** What each colour stands for, from (x, y) on downwards. */
export function legendSvg(names: readonly string[], x: number, y: number, width: number): string {
  return placed(names, width)
    .map((at, index) => {
      const middle = y + at.line * LEGEND_LINE + LEGEND_LINE / 2;
      const left = Math.round(x + at.x);
      return `<path d="M${left} ${middle}h9" stroke="${colourOf(index)}" stroke-width="3"/><text x="${left + SIGN}" y="${middle + 4}" font-size="${FONT}">${escaped(names[index] ?? "")}</text>`;
    })
    .join("\n");
}
