// SPDX-License-Identifier: Apache-2.0
// The result as text, as Markdown, and as JSON. Pure.
import { DIRECTIONS } from "./ground.ts";
import { type Goal, METRICS, type MetricMeaning, type Summary } from "./summary.ts";
import { type Absent, TITLES } from "./variants.ts";

export interface Result {
  readonly family: 4 | 6;
  readonly rounds: number;
  /** Kernel release and CPUs: numbers of two machines are not to be compared. */
  readonly machine: string;
  /** "nft" or "legacy": which iptables wrote upstream's rules. */
  readonly iptables: string;
  /** "one" for all programs, or "split". */
  readonly cpus: string;
  /** Share of the machine's CPU time that went into something else meanwhile. */
  readonly otherWork: number;
  readonly summaries: readonly Summary[];
  readonly goals: readonly Goal[];
  readonly absent: readonly Absent[];
  /** Measurements made again, with the reason. */
  readonly repeated: readonly string[];
}

type Cells = readonly string[];

const HEADINGS: Cells = ["median", "min", "max", "/ none", "/ upstream"];

function ratio(value: number | undefined): string {
  return value === undefined ? "-" : value.toFixed(2);
}

function cells(row: Summary, { digits }: MetricMeaning): Cells {
  const numbers = [row.median, row.min, row.max].map((value) => value.toFixed(digits));
  return [TITLES[row.variant], ...numbers, ratio(row.toNone), ratio(row.toUpstream)];
}

interface Block {
  readonly title: string;
  readonly rows: readonly Cells[];
}

function blocks({ summaries, family }: Result): Block[] {
  return DIRECTIONS.flatMap((direction) =>
    METRICS.map((meaning) => ({
      title: `${direction}, IPv${family}: ${meaning.title} (${meaning.unit}, ${meaning.better} is better)`,
      rows: summaries
        .filter((row) => row.direction === direction && row.metric === meaning.metric)
        .map((row) => cells(row, meaning)),
    })),
  ).filter(({ rows }) => rows.length > 0);
}

function circumstances({ machine, rounds, cpus, iptables, otherWork }: Result): string {
  const where = cpus === "one" ? "all programs on one CPU" : "the proxy on a CPU of its own";
  return `${machine}; ${rounds} rounds; ${where}; upstream's rules by iptables-${iptables}; ${(otherWork * 100).toFixed(0)} % of the machine's CPU time went into other work`;
}

function goalLine(goal: Goal): string {
  const verdict = goal.seen === undefined ? "not measured" : goal.met ? "met" : "not met";
  return `${goal.text}: ${goal.seen === undefined ? "" : `${goal.seen.toFixed(3)}, `}${verdict}`;
}

function remarks({ absent, repeated }: Result): string[] {
  return [
    ...absent.map(({ name, reason }) => `${name} is absent: ${reason}`),
    ...repeated.map((text) => `measured again: ${text}`),
  ];
}

/** For a terminal. */
export function asText(result: Result): string {
  const line = ([name = "", ...rest]: Cells) => `  ${name.padEnd(28)}${rest.map((cell) => cell.padStart(12)).join("")}`;
  return [
    circumstances(result),
    ...blocks(result).flatMap(({ title, rows }) => ["", title, line(["", ...HEADINGS]), ...rows.map(line)]),
    "",
    ...result.goals.map(goalLine),
    ...remarks(result),
  ].join("\n");
}

/** For a document. */
export function asMarkdown(result: Result): string {
  const line = (row: Cells) => `| ${row.join(" | ")} |`;
  return [
    `${circumstances(result)}.`,
    ...blocks(result).flatMap(({ title, rows }) => [
      "",
      `**${title}**`,
      "",
      line(["", ...HEADINGS]),
      line(["---", ...HEADINGS.map(() => "---:")]),
      ...rows.map(line),
    ]),
    "",
    "Goals:",
    "",
    ...result.goals.map((goal) => `- ${goalLine(goal)}`),
    ...remarks(result).map((remark) => `- ${remark}`),
  ].join("\n");
}

/** Puts `section` between the document's markers of that name. @throws Error when it has none. */
export function replaceSection(document: string, name: string, section: string): string {
  const begin = `<!-- begin ${name} -->`;
  const end = `<!-- end ${name} -->`;
  const from = document.indexOf(begin);
  const to = document.indexOf(end);
  if (from < 0 || to < from) throw new Error(`the document has no lines "${begin}" and "${end}"`);
  return `${document.slice(0, from + begin.length)}\n\n${section}\n\n${document.slice(to)}`;
}
