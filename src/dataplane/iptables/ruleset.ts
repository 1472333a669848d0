// SPDX-License-Identifier: Apache-2.0
// Chains as data. `plan` makes them, `text` prints them for iptables-restore, `observe` compares them
// with the kernel.
import type { AddressFamily } from "../../native/binding.ts";

/** Two implementations of one command: a kernel's own ip_tables, or nf_tables behind it. */
export type Variant = "legacy" | "nft";

export const VARIANTS: readonly Variant[] = ["nft", "legacy"];

/** In the order in which they are written: nothing is steered before what steering relies on is there. */
export const TABLE_NAMES = ["raw", "mangle", "filter", "nat"] as const;
export type TableName = (typeof TABLE_NAMES)[number];

export interface TableKey {
  readonly family: AddressFamily;
  readonly name: TableName;
}

export type BuiltIn = "PREROUTING" | "INPUT" | "FORWARD" | "OUTPUT";

export interface Rule {
  /** Short and unique within its chain: it becomes the rule's comment and names it in messages. */
  readonly name: string;
  /** iptables syntax without chain and comment; only `plan` writes it, from validated values. */
  readonly text: string;
  /** Written when every table of its family is; none that is not follows it in its chain. */
  readonly late?: true;
}

export interface Chain {
  /** One that its owner owns. */
  readonly name: string;
  /** The built-in chain whose first rule jumps here; undefined: reached from another chain of ours. */
  readonly from: BuiltIn | undefined;
  readonly rules: readonly Rule[];
}

export interface Table {
  readonly family: AddressFamily;
  readonly name: TableName;
  readonly chains: readonly Chain[];
}

export type Ruleset = readonly Table[];

/**
 * Whose chains a ruleset's are. Owners never own one name, so what belongs to one is read, written and removed
 * without the others.
 */
export interface Owner {
  /** Whatever name a pod gives a chain that is not such a one never becomes text for iptables-restore. */
  owns(chain: string): boolean;
  /** Holds one rule whose comment is the writer's memory; nothing leads to it. */
  readonly stateChain: string;
  readonly stateTable: TableKey;
  /** Comment of the rules that lead from a built-in chain into the owner's. */
  readonly jumpComment: string;
}

/** Upstream's chains are called ISTIO_*; ours must never meet them. */
export const CHAIN_PREFIX = "AMBIENT_CNI_";
export const UPSTREAM_PREFIX = "ISTIO_";
/** The shield (upstream/shield.ts) is no part of a capture. */
const CAPTURE_CHAIN = /^AMBIENT_CNI_(?!SHIELD$)[A-Z]{1,16}$/;

/** Chains of captured pods. */
export const CAPTURE: Owner = {
  owns: (chain) => CAPTURE_CHAIN.test(chain),
  stateChain: `${CHAIN_PREFIX}STATE`,
  // The first table that is written and the last that is emptied.
  stateTable: { family: 4, name: "raw" },
  jumpComment: "ambient-cni",
};

/** "iptables nat", "ip6tables raw": how a table is called in messages. */
export function tableTitle({ family, name }: { readonly family: AddressFamily; readonly name: string }): string {
  return `${family === 4 ? "iptables" : "ip6tables"} ${name}`;
}
