// SPDX-License-Identifier: Apache-2.0
// The iptables tables of a netns as the kernel has them, whichever variant made them. No fork.
import type { AddressFamily, NativeBinding, NetnsArg } from "../../native/binding.ts";
import { chainNames, tableNames } from "../netfilter/tables.ts";
import { SHIELD_CHAIN } from "../upstream/names.ts";
import { type Owner, TABLE_NAMES, type TableName, UPSTREAM_PREFIX, type Variant } from "./ruleset.ts";

const FAMILIES: readonly AddressFamily[] = [4, 6];
export const NFT_FAMILY = { 4: "ip", 6: "ip6" } as const;

export interface KernelRule {
  readonly chain: string;
  readonly comment: string;
  /** The chain it jumps or goes to, or "". */
  readonly jump: string;
  readonly digest: string;
  readonly packets: bigint;
  /** nf_tables only. */
  readonly handle?: bigint;
}

export interface KernelTable {
  readonly family: AddressFamily;
  readonly name: TableName;
  /** nf_tables only: none of its rules is in force. */
  readonly dormant: boolean;
  /** Chains that are no built-in ones. */
  readonly chains: readonly string[];
  /** Chain by chain, in the order in which the kernel walks them. */
  readonly rules: readonly KernelRule[];
  /** Besides rules and such chains it holds nothing, and lets everything pass. */
  readonly plain: boolean;
}

/** Tables of one variant that exist in the netns; by default all of them. */
export function readTables(
  binding: NativeBinding,
  netns: NetnsArg,
  variant: Variant,
  families: readonly AddressFamily[] = FAMILIES,
  names: readonly TableName[] = TABLE_NAMES,
): KernelTable[] {
  return variant === "legacy"
    ? legacyTables(binding, netns, families).filter(({ name }) => names.includes(name))
    : nftTables(binding, netns, families, names);
}

/** True when any chain of this owner's is in the netns, in either variant. Mostly one look is enough. */
export function anyOwned(owner: Owner, binding: NativeBinding, netns: NetnsArg): boolean {
  return chainsOfNft(binding, netns).some(owner.owns) || hasOwned(owner, legacyTables(binding, netns, FAMILIES));
}

/** Names of the chains that iptables-nft would show: one dump, whatever is in them. */
function chainsOfNft(binding: NativeBinding, netns: NetnsArg): string[] {
  return chainNames(binding, netns)
    .filter(({ family, table }) => isNftFamily(family) && isTableName(table))
    .map(({ name }) => name);
}

export function hasOwned(owner: Owner, tables: readonly KernelTable[]): boolean {
  return tables.some(({ chains }) => chains.some((chain) => owner.owns(chain)));
}

/** True for chains of upstream's istio-cni, of its ambient mode or of a sidecar's. */
export function hasUpstream(tables: readonly KernelTable[]): boolean {
  return tables.some(({ chains }) => chains.some((name) => name.startsWith(UPSTREAM_PREFIX)));
}

/** True for a table in which nothing is but chains of upstream's and the rules that lead to them. */
export function isUpstreams({ chains, rules }: KernelTable): boolean {
  const isIts = (chain: string) => chain.startsWith(UPSTREAM_PREFIX) || chain === SHIELD_CHAIN;
  return chains.length > 0 && chains.every(isIts) && rules.every(({ chain, jump }) => isIts(chain) || isIts(jump));
}

/** True when nothing is left of a table without some chains and the rules that lead to them. */
export function isEmpty({ plain, chains, rules }: KernelTable, without: (chain: string) => boolean): boolean {
  return plain && chains.every(without) && rules.every(({ chain, jump }) => without(chain) || without(jump));
}

function legacyTables(binding: NativeBinding, netns: NetnsArg, families: readonly AddressFamily[]): KernelTable[] {
  return families.flatMap((family) =>
    binding.xtables(netns, family).flatMap(({ name, chains, rules }) => {
      if (!isTableName(name)) return [];
      const own = chains.filter(({ policy }) => policy === "").map((chain) => chain.name);
      const plain = chains.every(({ policy }) => policy !== "drop");
      return [{ family, name, dormant: false, chains: own, rules, plain }];
    }),
  );
}

function nftTables(
  binding: NativeBinding,
  netns: NetnsArg,
  families: readonly AddressFamily[],
  names: readonly TableName[],
): KernelTable[] {
  const present = tableNames(binding, netns);
  const tables: KernelTable[] = [];
  for (const family of families) {
    for (const name of names) {
      if (!present.includes(`${NFT_FAMILY[family]} ${name}`)) continue;
      const table = binding.nftTable(netns, NFT_FAMILY[family], name);
      if (table === undefined) continue;
      const own = table.chains.filter(({ hook }) => hook === -1).map((chain) => chain.name);
      const plain = table.sets.length === 0 && table.chains.every(({ policy }) => policy !== "drop");
      tables.push({ family, name, dormant: table.dormant, chains: own, rules: table.rules, plain });
    }
  }
  return tables;
}

function isNftFamily(family: string): boolean {
  return family === NFT_FAMILY[4] || family === NFT_FAMILY[6];
}

function isTableName(name: string): name is TableName {
  return TABLE_NAMES.some((known) => known === name);
}
