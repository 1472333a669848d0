// SPDX-License-Identifier: Apache-2.0
import { closest } from "./closest.ts";
import type { Setting } from "./setting.ts";
import { READ_ELSEWHERE, SETTINGS } from "./table.ts";

const OURS = "AMBIENT_CNI_";

export type Environment = Readonly<Record<string, string | undefined>>;

/** Where a value came from, in the words of its user: `NODE_NAME` or `--log_as_json`. */
export interface Given {
  readonly name: string;
  readonly value: string;
}

/** A setting's environment variable: the first name set to something, else the first one set empty. */
export function fromEnvironment(setting: Setting<unknown>, env: Environment): Given | undefined {
  let empty: Given | undefined;
  for (const name of setting.env) {
    const value = env[name];
    if (value === undefined) continue;
    if (value !== "") return { name, value };
    empty ??= { name, value: setting.whenEmpty };
  }
  return empty;
}

/** Sentences about variables that look like ours and are not, and about two names of one setting that disagree. */
export function environmentWarnings(env: Environment): string[] {
  const warnings: string[] = [];
  // Names are compared without what all of them share, or every one would look near.
  const known = [...SETTINGS.flatMap(([, setting]) => setting.env), ...Object.keys(READ_ELSEWHERE)]
    .filter((name) => name.startsWith(OURS))
    .map((name) => name.slice(OURS.length));
  for (const name of Object.keys(env)) {
    const ending = name.slice(OURS.length);
    if (!name.startsWith(OURS) || env[name] === undefined || known.includes(ending)) continue;
    const near = closest(ending, known);
    const hint = near === undefined ? "" : `; did you mean ${OURS}${near}?`;
    warnings.push(`unknown variable ${name.slice(0, 80)} is ignored${hint}`);
  }
  for (const [, setting] of SETTINGS) {
    const [first, second] = setting.env
      .map((name) => ({ name, value: env[name] ?? "" }))
      .filter(({ value }) => value !== "");
    if (first !== undefined && second !== undefined && first.value !== second.value) {
      warnings.push(`${first.name} and ${second.name} differ; ${first.name}=${JSON.stringify(first.value)} counts`);
    }
  }
  return warnings;
}
