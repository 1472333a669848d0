// SPDX-License-Identifier: Apache-2.0
import { redact } from "../report/redact.ts";
import type { SettingReport } from "../report/settings.ts";
import { type Environment, fromEnvironment } from "./env.ts";
import { parseFlags } from "./flags.ts";
import { flagValue, parseConfig } from "./parse.ts";
import { DERIVED, type Setting } from "./setting.ts";
import { SETTINGS, type SettingId } from "./table.ts";

const MAX_VALUE = 1000;

/**
 * Every setting with its value and where that comes from, in the order of docs/config.md; settings without
 * effect only where somebody has given them one.
 * @throws AgentError CONFIG_INVALID as parseConfig
 */
export function effectiveSettings(env: Environment, argv: readonly string[]): SettingReport[] {
  const { config } = parseConfig(env, argv);
  const { given } = parseFlags(argv);
  const resolved: Readonly<Record<string, unknown>> = { ...config };
  const rows: SettingReport[] = [];
  for (const [id, setting] of SETTINGS) {
    const flag = flagValue(id, given);
    const source = flag ?? fromEnvironment(setting, env);
    if (source === undefined && setting.status !== "honoured") continue;
    const derived = setting.fallback === DERIVED ? textOf(resolved[id]) : setting.fallback;
    rows.push({
      setting: nameOf(id, setting),
      value: redact(cut(source?.value ?? derived)),
      origin: source === undefined ? "default" : `${flag === undefined ? "env" : "flag"} ${source.name}`,
      status: setting.status,
    });
  }
  return rows;
}

function nameOf(id: SettingId, { env, flag }: Setting<unknown>): string {
  return env[0] ?? (flag === undefined ? id : `--${flag}`);
}

/** A derived value is text; whatever else an empty default means has no text. */
function textOf(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function cut(text: string): string {
  return text.length <= MAX_VALUE ? text : `${text.slice(0, MAX_VALUE)}...`;
}
