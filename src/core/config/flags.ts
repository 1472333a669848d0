// SPDX-License-Identifier: Apache-2.0
import { closest } from "./closest.ts";
import { bool } from "./kinds.ts";
import { SETTINGS } from "./table.ts";

/** pflag's booleans take no separate value; these are booleans upstream though we don't read them. */
const UNREAD_BOOLEANS = new Set(["log_caller", "skip-tls-verify", "enable-ambient-detection-retry"]);

export interface Flags {
  /** Values in the order given, by flag name. */
  readonly given: ReadonlyMap<string, readonly string[]>;
  readonly errors: readonly string[];
}

/**
 * Reads install-cni's arguments as pflag does: `--flag=value`, `--flag value`, `--boolean`, the last
 * one wins (log_target: all of them). Never throws; `errors` holds a sentence for each bad argument.
 */
export function parseFlags(argv: readonly string[]): Flags {
  const settings = new Map(SETTINGS.map(([, setting]) => [setting.flag, setting]));
  const names = [...settings.keys()].filter((name) => name !== undefined);
  const given = new Map<string, string[]>();
  const errors: string[] = [];
  for (let index = 0; index < argv.length; index++) {
    const argument = argv[index] ?? "";
    if (!argument.startsWith("--") || argument === "--") {
      errors.push(`unexpected argument ${JSON.stringify(argument.slice(0, 80))}`);
      continue;
    }
    const equals = argument.indexOf("=");
    const name = equals < 0 ? argument.slice(2) : argument.slice(2, equals);
    const setting = settings.get(name);
    if (setting === undefined) {
      const near = closest(name, names);
      errors.push(`unknown flag --${name.slice(0, 80)}${near === undefined ? "" : `; did you mean --${near}?`}`);
      continue;
    }
    let value = argument.slice(equals + 1);
    if (equals < 0) {
      if (setting.kind === bool || UNREAD_BOOLEANS.has(name)) {
        value = "true";
      } else if (index + 1 < argv.length) {
        index += 1;
        value = argv[index] ?? "";
      } else {
        errors.push(`--${name} needs a value`);
        continue;
      }
    }
    given.set(name, [...(given.get(name) ?? []), value]);
  }
  return { given, errors };
}
