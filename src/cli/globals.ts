// SPDX-License-Identifier: Apache-2.0
import { type Command, InvalidArgumentError, Option } from "commander";
import { DEFAULT_RUN_DIR, RUN_FILE } from "../core/constants.ts";
import type { CliEnv } from "./env.ts";

export const FORMATS = ["table", "wide", "json", "yaml"] as const;
export type Format = (typeof FORMATS)[number];

/** A form for people. */
export function isTable(format: Format): boolean {
  return format === "table" || format === "wide";
}

/** What every reading command takes. */
export interface Globals {
  readonly format: Format;
  readonly color: boolean;
  readonly socket: string;
  /** ms; undefined: the command's own. */
  readonly timeoutMs: number | undefined;
  /** A bug report that is read in place of a node. */
  readonly from: string | undefined;
}

/** One line for every help; the options themselves would take a third of it. */
export const GLOBALS_LINE =
  "Everywhere: -o table|wide|json|yaml, --no-color, --socket PATH, --timeout TIME, --from TGZ, -h";

const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };
const TIMEOUT_MAX_MS = 24 * 3_600_000;

/** `500ms`, `5s`, `2m`, `1h`; a bare number is seconds. Returns ms. */
export function parseTime(text: string): number {
  const [, digits, unit = "s"] = /^(\d{1,6}(?:\.\d{1,3})?)(ms|s|m|h)?$/.exec(text) ?? [];
  const ms = Number(digits) * (UNIT_MS[unit] ?? Number.NaN);
  if (!(ms >= 1 && ms <= TIMEOUT_MAX_MS)) throw new InvalidArgumentError("A time such as 500ms, 5s or 2m is expected.");
  return Math.round(ms);
}

function parsePath(text: string): string {
  if (text === "") throw new InvalidArgumentError("A path is expected.");
  return text;
}

const formatOption = (): Option =>
  new Option("-o, --output <format>", "form of the output").choices(FORMATS).default("table").hideHelp();

/** Adds them, without lines of their own in the help; `output` takes the place of -o where that means more. */
export function addGlobals(command: Command, output = formatOption()): Command {
  return command
    .addOption(output)
    .addOption(new Option("--no-color", "no colours (also: NO_COLOR)").hideHelp())
    .addOption(new Option("--socket <path>", "the agent's debug socket").argParser(parsePath).hideHelp())
    .addOption(new Option("--timeout <time>", "how long to wait for the agent").argParser(parseTime).hideHelp())
    .addOption(new Option("--from <tgz>", "read this bug report, not the node").argParser(parsePath).hideHelp());
}

/** Their values, whether they were written before or after the command's name. */
export function globalsOf(command: Command, env: CliEnv): Globals {
  const values = function* <T>(name: string): Generator<T> {
    for (let at: Command | null = command; at !== null; at = at.parent) {
      if (at.getOptionValueSource(name) === "cli") yield at.getOptionValue(name) as T;
    }
  };
  const value = <T>(name: string): T | undefined => [...values<T>(name)][0];
  // Beside a file that a command's own -o may name.
  const outputs = [...values<string>("output")];
  const wanted = value<boolean>("color") !== false && (env.getenv("NO_COLOR") ?? "") === "";
  return {
    format: outputs.flatMap((output) => FORMATS.filter((format) => format === output))[0] ?? "table",
    color: wanted && env.stdout.isTTY,
    socket: value<string>("socket") ?? socketOf(env),
    timeoutMs: value<number>("timeout"),
    from: value<string>("from"),
  };
}

/** Where the agent listens, by the environment that agent and `kubectl exec` share. */
function socketOf(env: CliEnv): string {
  const set = env.getenv("AMBIENT_CNI_DEBUG_SOCKET") ?? "";
  if (set !== "") return set;
  return `${env.getenv("CNI_AGENT_RUN_DIR") || DEFAULT_RUN_DIR}/${RUN_FILE.debugSocket}`;
}
