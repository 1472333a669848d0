// SPDX-License-Identifier: Apache-2.0
// The comment of a pod's table: what the table is, readable for people and for the next agent.
import type { EngineState } from "../engine.ts";
import { isPlanMode, type PlanMode } from "../netfilter/mode.ts";

/** Raised when a table of an older agent can't be told right or wrong by its hashes any more. */
export const SCHEMA = 1;

export interface TableState extends EngineState {
  readonly mode: PlanMode;
  /** Hash of the plan's text. */
  readonly plan: string;
  /** Digest of the rules as the kernel shows them (observe.ts). */
  readonly rules: string;
}

const COMMENT =
  /^ambient-cni v(\d{1,4}) (captured|draining|retiring) plan=([0-9a-f]{16}) rules=([0-9a-f]{16}) sysctls=([a-z]*)( legs=upstream)?$/;

/** At most 128 bytes fit (NFTNL_UDATA_COMMENT_MAXLEN); this is about 95. */
export function formatState({ mode, plan, rules, sysctls, legs }: TableState): string {
  const told = legs === "upstream" ? " legs=upstream" : "";
  return `ambient-cni v${SCHEMA} ${mode} plan=${plan} rules=${rules} sysctls=${sysctls}${told}`;
}

/** undefined for a comment that this version did not write. */
export function parseState(comment: string): TableState | undefined {
  const [, schema, mode, plan, rules, sysctls, legs] = COMMENT.exec(comment) ?? [];
  if (Number(schema) !== SCHEMA || !isPlanMode(mode)) return undefined;
  if (plan === undefined || rules === undefined || sysctls === undefined) return undefined;
  return { mode, plan, rules, sysctls, legs: legs === undefined ? "own" : "upstream" };
}
