// SPDX-License-Identifier: Apache-2.0
// A table as data. `plan` makes one, `text` prints it for nft, `observe` compares it with the kernel.

export interface Rule {
  /** Short and unique within its chain: it becomes the rule's comment and names it in messages. */
  readonly name: string;
  /** nft syntax without the comment; only `plan` writes it, from validated values. */
  readonly text: string;
}

export interface Hook {
  readonly type: "filter" | "nat" | "route";
  readonly hook: "prerouting" | "input" | "forward" | "output" | "postrouting";
  /** A number: nft 1.0.6 takes the name `dstnat` only for prerouting. */
  readonly priority: number;
}

export interface Chain {
  readonly name: string;
  /** undefined: a regular chain, reached by jump. */
  readonly hook: Hook | undefined;
  readonly rules: readonly Rule[];
}

export interface NamedSet {
  readonly name: string;
  /** nft syntax between the braces, without elements. */
  readonly text: string;
}

export interface Ruleset {
  readonly sets: readonly NamedSet[];
  readonly chains: readonly Chain[];
}

/** NF_INET_* numbers of the hooks, as the kernel reports them. */
export const HOOK_NUMBER: Readonly<Record<Hook["hook"], number>> = {
  prerouting: 0,
  input: 1,
  forward: 2,
  output: 3,
  postrouting: 4,
};
