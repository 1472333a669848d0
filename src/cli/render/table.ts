// SPDX-License-Identifier: Apache-2.0
import { visible } from "./text.ts";

export interface Column<Row> {
  readonly title: string;
  readonly of: (row: Row) => string;
  /** Only with `-o wide`. */
  readonly wide?: boolean;
}

const GAP = "  ";

/** kubectl's tables: no borders, columns as wide as what is in them, nothing at the end of a line. */
export function table<Row>(columns: readonly Column<Row>[], rows: readonly Row[], wide: boolean): string {
  const shown = columns.filter((column) => wide || column.wide !== true);
  const cells = rows.map((row) => shown.map((column) => visible(column.of(row))));
  return aligned([shown.map(({ title }) => title), ...cells]);
}

/** Lines whose parts begin one below the other. */
export function aligned(lines: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const line of lines) {
    line.forEach((cell, index) => {
      widths[index] = Math.max(widths[index] ?? 0, width(cell));
    });
  }
  return lines
    .map((line) => line.map((cell, index) => cell + " ".repeat((widths[index] ?? 0) - width(cell))).join(GAP))
    .map((line) => `${line.trimEnd()}\n`)
    .join("");
}

/** Columns on the screen; colours take none. */
function width(text: string): number {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: escape sequences are what is looked for
  return [...text.replace(/\u001b\[[0-9;]*m/g, "")].length;
}
