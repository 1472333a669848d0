// SPDX-License-Identifier: Apache-2.0
// The comment of a pod's state rule: what the chains are, readable for people and for the next agent.
import type { EngineState } from "../engine.ts";
import { isPlanMode, type PlanMode } from "../netfilter/mode.ts";
import { TABLE_NAMES, type TableKey } from "./ruleset.ts";

/** Raised when rules of an older agent can't be told right or wrong by their hashes any more. */
export const SCHEMA = 1;

export interface RulesState extends EngineState {
  readonly mode: PlanMode;
  /** Hash of the plan's text. */
  readonly plan: string;
  /** Digest of the rules as the kernel shows them (observe.ts). */
  readonly rules: string;
  /** Tables of nf_tables that were not there before us: removed with our rules when they are empty then. */
  readonly made: readonly TableKey[];
}

const COMMENT =
  /^ambient-cni v(\d{1,4}) (captured|draining|retiring) plan=([0-9a-f]{16}) rules=([0-9a-f]{16}) sysctls=([a-z]*) made=((?:[rmfn][46])*)( legs=upstream)?$/;

/** At most 255 bytes fit (XT_MAX_COMMENT_LEN); this is about 125. */
export function formatState({ mode, plan, rules, sysctls, made, legs }: RulesState): string {
  const tables = tableLetters(made);
  const told = legs === "upstream" ? " legs=upstream" : "";
  return `ambient-cni v${SCHEMA} ${mode} plan=${plan} rules=${rules} sysctls=${sysctls} made=${tables}${told}`;
}

/** undefined for a comment that this version did not write. */
export function parseState(comment: string): RulesState | undefined {
  const [, schema, mode, plan, rules, sysctls, made, legs] = COMMENT.exec(comment) ?? [];
  if (Number(schema) !== SCHEMA || !isPlanMode(mode)) return undefined;
  if (plan === undefined || rules === undefined || sysctls === undefined || made === undefined) return undefined;
  return { mode, plan, rules, sysctls, made: parseTables(made), legs: legs === undefined ? "own" : "upstream" };
}

/** Tables as two letters each, for a comment. */
export function tableLetters(tables: readonly TableKey[]): string {
  return tables.map(({ family, name }) => `${name.charAt(0)}${family}`).join("");
}

/** Inverse of tableLetters. */
export function parseTables(letters: string): TableKey[] {
  const keys: TableKey[] = [];
  for (const [, initial, digit] of letters.matchAll(/([rmfn])([46])/g)) {
    const name = TABLE_NAMES.find((table) => table.startsWith(initial ?? ""));
    if (name !== undefined) keys.push({ name, family: digit === "4" ? 4 : 6 });
  }
  return keys;
}
