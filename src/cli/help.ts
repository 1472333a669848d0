// SPDX-License-Identifier: Apache-2.0
import type { Command, Help } from "commander";
import { GLOBALS_LINE } from "./globals.ts";

const examples = new WeakMap<Command, readonly string[]>();

export function describeExamples(command: Command, lines: readonly string[]): void {
  examples.set(command, lines);
}

export function examplesOf(command: Command): readonly string[] {
  return examples.get(command) ?? [];
}

/** Help of any command: never more than a screen, whatever the terminal's width. */
export function formatHelp(command: Command, helper: Help): string {
  const rows: (readonly [string, string])[] = [];
  for (const argument of helper.visibleArguments(command)) {
    rows.push([helper.argumentTerm(argument), helper.argumentDescription(argument)]);
  }
  const subcommands = subcommandsOf(command);
  for (const sub of subcommands) rows.push([sub.name(), sub.summary() || sub.description()]);
  for (const option of helper.visibleOptions(command)) {
    // The command `version` says as much as --version, and a line is dear.
    if (option.long !== "--help" && option.long !== "--version")
      rows.push([helper.optionTerm(option), helper.optionDescription(option)]);
  }
  const width = Math.max(0, ...rows.map(([term]) => term.length));
  // Many commands and a screen of 25 lines: the one that lists them goes without the first gap.
  const gap = subcommands.length > 0 ? [] : [""];
  const lines = [`Usage: ${helper.commandUsage(command)}`, ...gap, helper.commandDescription(command), ""];
  for (const [term, text] of rows) lines.push(`  ${term.padEnd(width)}  ${text}`.trimEnd());
  if (rows.length > 0) lines.push("");
  if (command.options.some(({ long }) => long === "--socket")) lines.push(GLOBALS_LINE, "");
  const shown = examplesOf(command);
  if (shown.length > 0) lines.push("Examples:", ...shown.map((line) => `  ${line}`));
  return `${lines.join("\n")}\n`;
}

/** Those that a person is told of. */
export function subcommandsOf(command: Command): readonly Command[] {
  return command
    .createHelp()
    .visibleCommands(command)
    .filter((sub) => sub.name() !== "help");
}
