// SPDX-License-Identifier: Apache-2.0
import type { Kind } from "./kinds.ts";

/** `later`: read and checked, but what it governs is not part of this version yet. */
export type Status = "honoured" | "accepted" | "refused" | "later";

export type Section = "Mesh" | "Identity" | "Dataplane" | "Paths" | "Installer" | "Repair" | "Telemetry" | "Accepted";

/** One row of docs/config.md: something a person can set. */
export interface Setting<T> {
  readonly section: Section;
  /** Without its dashes. */
  readonly flag: string | undefined;
  /** Names of environment variables, the first one set to something counts. */
  readonly env: readonly string[];
  readonly kind: Kind<T>;
  /** As text, read like any other value. */
  readonly fallback: string;
  /** What the documentation says in place of `fallback`. */
  readonly fallbackText: string | undefined;
  /** What an environment variable set to the empty string means. */
  readonly whenEmpty: string;
  readonly status: Status;
  /** A sentence for the documentation; of a setting without effect, why it has none. */
  readonly effect: string;
}

interface Extra {
  readonly aliases?: readonly string[];
  readonly fallbackText?: string;
  readonly status?: Status;
}

/** Value of `fallback` for settings whose default is derived from other settings. */
export const DERIVED = "";

export function envName(flag: string): string {
  return flag.toUpperCase().replaceAll("-", "_");
}

function setting<T>(
  section: Section,
  names: { flag?: string; env: readonly string[] },
  kind: Kind<T>,
  fallback: string,
  whenEmpty: string,
  effect: string,
  extra: Extra,
): Setting<T> {
  return {
    section,
    flag: names.flag,
    env: [...names.env, ...(extra.aliases ?? [])],
    kind,
    fallback,
    fallbackText: extra.fallbackText,
    whenEmpty,
    status: extra.status ?? "honoured",
    effect,
  };
}

/** A flag of install-cni, bound by viper to the variable of its name: an empty variable counts as set. */
export const flagged = <T>(
  section: Section,
  flag: string,
  kind: Kind<T>,
  fallback: string,
  effect: string,
  extra: Extra = {},
) => setting(section, { flag, env: [envName(flag)] }, kind, fallback, kind.zero, effect, extra);

/** A variable that viper reads without a flag: an empty one counts as set. */
export const envOnly = <T>(
  section: Section,
  env: string,
  kind: Kind<T>,
  fallback: string,
  effect: string,
  extra: Extra = {},
) => setting(section, { env: [env] }, kind, fallback, kind.zero, effect, extra);

/** A variable read outside viper, or one of ours: an empty one is like an unset one. */
export const plainEnv = <T>(
  section: Section,
  env: string,
  kind: Kind<T>,
  fallback: string,
  effect: string,
  extra: Extra = {},
) => setting(section, { env: [env] }, kind, fallback, fallback, effect, extra);

/** A flag without variable: upstream's logging and introspection flags. */
export const flagOnly = <T>(
  section: Section,
  flag: string,
  kind: Kind<T>,
  fallback: string,
  effect: string,
  extra: Extra = {},
) => setting(section, { flag, env: [] }, kind, fallback, fallback, effect, extra);
