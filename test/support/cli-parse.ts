// SPDX-License-Identifier: Apache-2.0
import type { Command } from "commander";
import { buildProgram } from "../../src/cli/commands.ts";
import { processEnv } from "../../src/cli/env.ts";

/** Why the program does not take a command line; undefined when it does, or when it is a command's name alone. Nothing is run. */
export function refusalOf(argv: readonly string[]): string | undefined {
  let command: Command = buildProgram(processEnv(), () => undefined);
  let words = [...argv];
  // The agent takes istio-cni's flags, whatever they are.
  if (words[0] === "install-cni") return undefined;
  while (command.commands.length > 0 && words.length > 0) {
    const [name = ""] = words;
    if (command.options.some((option) => [option.long, option.short].includes(name) && option.isBoolean()))
      return undefined;
    const next = command.commands.find((one) => one.name() === name);
    if (next === undefined) return `unknown command ${JSON.stringify(name)}`;
    command = next;
    words = words.slice(1);
  }
  if (words.length === 0) return undefined;
  const end = words.indexOf("--");
  const { operands, unknown } = command.parseOptions(end < 0 ? words : words.slice(0, end));
  const option = unknown.find((word) => word !== "--help" && word !== "-h");
  if (option !== undefined) return `unknown option ${JSON.stringify(option)}`;
  const { registeredArguments } = command;
  const most = registeredArguments.at(-1)?.variadic === true ? Number.POSITIVE_INFINITY : registeredArguments.length;
  if (operands.length > most) return `too many arguments: ${operands.join(" ")}`;
  const least = registeredArguments.filter(({ required }) => required).length;
  return operands.length < least && unknown.length === 0 ? "an argument is missing" : undefined;
}
