// SPDX-License-Identifier: Apache-2.0
// What upstream's istio-cni has written into a netns, whichever of its forms. No fork.
import type { AddressFamily, NativeBinding } from "../../native/binding.ts";
import { type KernelTable, readTables } from "../iptables/kernel.ts";
import { VARIANTS, type Variant } from "../iptables/ruleset.ts";
import { chainNames, tableNamed } from "../netfilter/tables.ts";
import {
  isUpstreamChain,
  MANGLE_TABLE,
  NAT_TABLE,
  PREROUTING_CHAIN,
  RAW_TABLE,
  SHIELD_CHAIN,
  SHIELD_TABLE,
} from "./names.ts";

/** One `iptables` program's share. */
export interface ChainTraces {
  readonly variant: Variant;
  readonly family: AddressFamily;
  /** Tables with chains of upstream's or our shield. */
  readonly tables: readonly KernelTable[];
}

export interface UpstreamTraces {
  readonly chains: readonly ChainTraces[];
  /** Names of `inet` tables. */
  readonly tables: readonly string[];
  /** New connections are redirected by it. */
  readonly steers: boolean;
}

const FAMILIES: readonly AddressFamily[] = [4, 6];
const TABLES: readonly string[] = [NAT_TABLE, MANGLE_TABLE, RAW_TABLE, SHIELD_TABLE];
const IPTABLES_TABLES: readonly string[] = ["nat", "mangle", "raw"];

/** One dump and two files where nothing of upstream's is. */
export function upstreamPresent(binding: NativeBinding, netns: number): boolean {
  return inNftables(binding, netns) || inLegacy(binding, netns);
}

/** undefined when nothing of it is there. */
export function upstreamTraces(binding: NativeBinding, netns: number): UpstreamTraces | undefined {
  if (!upstreamPresent(binding, netns)) return undefined;
  const chains = VARIANTS.flatMap((variant) =>
    FAMILIES.map((family) => ({ variant, family, tables: tracesIn(readTables(binding, netns, variant, [family])) })),
  ).filter(({ tables }) => tables.length > 0);
  const tables = inetTables(binding, netns);
  const natively = tables.includes(NAT_TABLE) && redirectsNatively(binding, netns);
  return { chains, tables, steers: natively || chains.some((one) => one.tables.some(redirects)) };
}

/** In its native nftables form. */
export function redirectsNatively(binding: NativeBinding, netns: number): boolean {
  return (tableNamed(binding, netns, "inet", NAT_TABLE)?.rules ?? []).length > 0;
}

/** The redirecting rules are in its chains of nat. */
export function redirects({ name, rules }: KernelTable): boolean {
  return name === "nat" && rules.some(({ chain }) => isUpstreamChain(chain));
}

/** Of the tables of one program: those with chains of upstream's ambient mode, or our shield. */
export function tracesIn(tables: readonly KernelTable[]): KernelTable[] {
  const ambient = tables.some(({ chains }) => chains.includes(PREROUTING_CHAIN));
  return tables
    .filter(({ name }) => IPTABLES_TABLES.includes(name))
    .filter(({ chains }) => chains.includes(SHIELD_CHAIN) || (ambient && chains.some(isUpstreamChain)));
}

function inNftables(binding: NativeBinding, netns: number): boolean {
  return chainNames(binding, netns).some(({ family, table, name }) =>
    family === "inet" ? TABLES.includes(table) : IPTABLES_TABLES.includes(table) && isTrace(name),
  );
}

function inLegacy(binding: NativeBinding, netns: number): boolean {
  return FAMILIES.some((family) =>
    binding.xtables(netns, family).some(({ chains }) => chains.some(({ name }) => isTrace(name))),
  );
}

function isTrace(chain: string): boolean {
  return chain === PREROUTING_CHAIN || chain === SHIELD_CHAIN;
}

function inetTables(binding: NativeBinding, netns: number): string[] {
  const names = chainNames(binding, netns).filter(({ family }) => family === "inet");
  return TABLES.filter((name) => names.some(({ table }) => table === name));
}
