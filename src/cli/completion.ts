// SPDX-License-Identifier: Apache-2.0
// What may come next on a command line: from commander's tree, and for pods from the node.
import type { Command, Option } from "commander";
import { subcommandsOf } from "./help.ts";

export interface Candidate {
  readonly value: string;
  readonly description: string;
}

/** What the tree can't know. */
export interface Known {
  /** Names of the node's pods; none when they can't be had at once. */
  pods(): Promise<readonly string[]>;
}

/**
 * Candidates for the last of `words`, which may be empty; `words` are what follows the program's name. Only those that
 * begin with it.
 */
export async function complete(root: Command, words: readonly string[], known: Known): Promise<readonly Candidate[]> {
  const last = words.at(-1) ?? "";
  const before = words.slice(0, -1);
  let command = root;
  let arguments_ = 0;
  let wants: Option | undefined;
  for (const word of before) {
    if (wants !== undefined) {
      wants = undefined;
      continue;
    }
    if (word.startsWith("-") && word !== "-") {
      const option = command.options.find(({ long, short }) => word === long || word === short);
      // One that has its value with it needs no further word.
      if (option?.required) wants = option;
      continue;
    }
    const sub = arguments_ === 0 ? subcommandsOf(command).find((one) => one.name() === word) : undefined;
    if (sub === undefined) arguments_ += 1;
    else command = sub;
  }
  const candidates = await candidatesAt(command, { last, arguments_, wants }, known);
  return candidates.filter(({ value }) => value.startsWith(last));
}

interface Place {
  readonly last: string;
  /** Arguments of the command that are there already. */
  readonly arguments_: number;
  /** The option whose value comes. */
  readonly wants: Option | undefined;
}

async function candidatesAt(command: Command, place: Place, known: Known): Promise<readonly Candidate[]> {
  const { last, arguments_, wants } = place;
  if (wants !== undefined) return (wants.argChoices ?? []).map((value) => ({ value, description: "" }));
  if (last.startsWith("-")) {
    return [...command.options, ...helpOf(command)]
      .map(({ long, short, description }) => ({ value: long ?? short ?? "", description }))
      .filter(({ value }) => value !== "");
  }
  if (arguments_ === 0 && subcommandsOf(command).length > 0) {
    return subcommandsOf(command).map((sub) => ({ value: sub.name(), description: sub.summary() }));
  }
  const argument = command.registeredArguments[Math.min(arguments_, command.registeredArguments.length - 1)];
  if (argument === undefined || (arguments_ >= command.registeredArguments.length && !argument.variadic)) return [];
  if (argument.argChoices !== undefined) return argument.argChoices.map((value) => ({ value, description: "" }));
  if (argument.name() !== "pod" && argument.name() !== "pods") return [];
  return (await known.pods()).map((value) => ({ value, description: "" }));
}

function helpOf(command: Command): readonly Pick<Option, "long" | "short" | "description">[] {
  return [{ long: "--help", short: "-h", description: `help for ${command.name()}` }];
}
