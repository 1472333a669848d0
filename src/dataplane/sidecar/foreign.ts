// SPDX-License-Identifier: Apache-2.0
// A sidecar's redirection that somebody else has written: upstream's plugin, its repair, or an istio-init.
import type { EngineName } from "../../core/ports/dataplane.ts";
import type { NetnsHandle } from "../../core/ports/netns.ts";
import type { NativeBinding } from "../../native/binding.ts";
import { hasOwned, type KernelTable, readTables } from "../iptables/kernel.ts";
import { VARIANTS } from "../iptables/ruleset.ts";
import { tableNames } from "../netfilter/tables.ts";
import { SIDECAR } from "./iptables-rules.ts";

/** Upstream's nftables variant has several tables per family; this one it always has. */
const TABLE = /^(inet|ip|ip6) istio-proxy-nat$/;
/** The last that upstream writes, in the table that it writes last, so the others are there too. */
const CHAIN = "ISTIO_OUTPUT";

/** What a foreign redirection is made of, or undefined when there is none. No fork. */
export function foreignRedirection(binding: NativeBinding, netns: NetnsHandle): EngineName | undefined {
  if (tableNames(binding, netns.fd).some((name) => TABLE.test(name))) return "nftables";
  if (VARIANTS.some((variant) => isForeign(readTables(binding, netns.fd, variant)))) return "iptables";
  return undefined;
}

/** True for chains of upstream's names that are a redirection without our memory. */
export function isForeign(tables: readonly KernelTable[]): boolean {
  const chains = tables.filter(({ name }) => name === "nat").flatMap((table) => table.chains);
  return chains.includes(CHAIN) && !chains.includes(SIDECAR.stateChain);
}

/** The chains have upstream's names: what tells ours is the memory in them. */
export function isOurs(tables: readonly KernelTable[]): boolean {
  return hasOwned(SIDECAR, tables) && !isForeign(tables);
}
