// SPDX-License-Identifier: Apache-2.0
import { InvalidArgumentError, Option } from "commander";
import { LOG_LEVELS, type LogLevel } from "../../core/config/config.ts";
import type { LevelsChange, LevelsReport } from "../../core/report/levels.ts";
import { addCommand, type Program, usageError } from "../command.ts";
import { EXIT } from "../exit.ts";
import { sourceLine } from "../render/headline.ts";
import { type Column, table } from "../render/table.ts";
import { visible } from "../render/text.ts";

interface LogOptions {
  readonly reset?: boolean;
  readonly last?: number;
}

export function addLog(program: Program): void {
  addCommand<LogOptions>(
    program,
    {
      usage: "log [levels...]",
      summary: "log levels of the running agent, or its last lines; with levels, changes them",
      examples: [
        "ambient-cni log                        # what is logged now",
        "ambient-cni log zds:debug kube:warn    # until the agent restarts",
        "ambient-cni log --last 100             # its last lines, which it keeps in memory",
      ],
    },
    (command) =>
      command
        .option("--reset", "first, every scope back to its configured level")
        .addOption(new Option("--last <count>", "the last lines that it has logged").argParser(parseCount)),
    async (session, { reset = false, last }, words) => {
      if (last !== undefined) {
        if (reset || words.length > 0) usageError("--last reads lines; levels are changed without it");
        const told = await (session.globals.from === undefined ? await session.agent() : await session.source()).read(
          "lines",
        );
        const lines = told.lines.slice(-last);
        await session.print({ ...told, lines }, () => lines.map(lineText).join(""));
        return EXIT.ok;
      }
      const levels = words.flatMap((word) => word.split(",")).map(parseLevel);
      const change: LevelsChange | undefined = levels.length === 0 && !reset ? undefined : { reset, levels };
      const known = levels.length === 0 ? undefined : (await (await session.agent()).read("log")).scopes;
      const report =
        change !== undefined
          ? await (await session.agent()).change("log", change)
          : // Only the agent or a report of it knows.
            await (session.globals.from === undefined ? await session.agent() : await session.source()).read("log");
      await session.print(report, () => levelsText(report));
      for (const scope of strangers(levels, known)) {
        session.env.stderr.write(
          `ambient-cni: nothing has logged as ${JSON.stringify(scope)} yet; its level waits for it\n`,
        );
      }
      return EXIT.ok;
    },
  );
}

/** Scopes are made by those who log: one that nobody has made may be a slip of the pen. */
function strangers(levels: LevelsChange["levels"], known: LevelsReport["scopes"] | undefined): readonly string[] {
  if (known === undefined) return [];
  const names = new Set(["all", "default", ...known.map(({ scope }) => scope)]);
  return levels.map(({ scope }) => scope).filter((scope) => !names.has(scope));
}

/** The tabs between the parts of a line are the log's own. */
function lineText(line: string): string {
  return `${visible(line.replaceAll("\t", "  "))}\n`;
}

function parseCount(text: string): number {
  if (!/^[1-9]\d{0,5}$/.test(text)) throw new InvalidArgumentError("A count of lines is expected.");
  return Number(text);
}

function parseLevel(word: string): { readonly scope: string; readonly level: LogLevel } {
  const [scope = "", text = "", ...rest] = word.includes(":") ? word.split(":") : ["default", word];
  const level = LOG_LEVELS.find((known) => known === text);
  if (level === undefined || rest.length > 0 || !/^[A-Za-z0-9_.-]{1,64}$/.test(scope)) {
    usageError(`${JSON.stringify(word)} is no scope:level; levels are ${LOG_LEVELS.join(", ")}`);
  }
  return { scope, level };
}

type Scope = LevelsReport["scopes"][number];

export function levelsText(report: LevelsReport): string {
  const columns: readonly Column<Scope>[] = [
    { title: "SCOPE", of: ({ scope }) => scope },
    { title: "LEVEL", of: ({ level }) => level },
    { title: "CONFIGURED", of: ({ level, configured }) => (configured === level ? "" : configured) },
  ];
  return sourceLine(report) + table(columns, report.scopes, false);
}
