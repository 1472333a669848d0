// SPDX-License-Identifier: Apache-2.0
// The comment of a sidecar pod's table or state rule: what the rules are, readable for people and for the
// next agent.

import type { TableKey } from "../iptables/ruleset.ts";
import { parseTables, tableLetters } from "../iptables/state.ts";

/** Raised when rules of an older agent can't be told right or wrong by their hashes any more. */
const SCHEMA = 1;

export interface RedirectionState {
  /** Hash of the rules' text. */
  readonly plan: string;
  /** Digest of the rules as the kernel shows them. */
  readonly rules: string;
  /** Tables of iptables-nft that were not there before us. */
  readonly made: readonly TableKey[];
}

const COMMENT = /^ambient-cni sidecar v(\d{1,4}) plan=([0-9a-f]{16}) rules=([0-9a-f]{16}) made=((?:[rmfn][46])*)$/;

/** At most 128 bytes fit into a table's comment; this is about 90. */
export function formatState({ plan, rules, made }: RedirectionState): string {
  return `ambient-cni sidecar v${SCHEMA} plan=${plan} rules=${rules} made=${tableLetters(made)}`;
}

/** undefined for a comment that this version did not write. */
export function parseState(comment: string): RedirectionState | undefined {
  const [, schema, plan, rules, made] = COMMENT.exec(comment) ?? [];
  if (Number(schema) !== SCHEMA || plan === undefined || rules === undefined || made === undefined) return undefined;
  return { plan, rules, made: parseTables(made) };
}
