// SPDX-License-Identifier: Apache-2.0
// Reading nf_tables where the kernel may have none.
import { codeOf } from "../../core/errors.ts";
import type { NativeBinding, NetnsArg, NftChainName, NftTable } from "../../native/binding.ts";

/** Names of all tables in a netns as "family name"; none where the kernel has no nf_tables. No fork. */
export function tableNames(binding: NativeBinding, netns: NetnsArg): readonly string[] {
  return orElse([], () => binding.nftTables(netns));
}

/** Every chain of every table in a netns; none where the kernel has no nf_tables. One dump, no fork. */
export function chainNames(binding: NativeBinding, netns: NetnsArg): readonly NftChainName[] {
  return orElse([], () => binding.nftChains(netns));
}

/** A table, or undefined where there is no such one. No fork. */
export function tableNamed(
  binding: NativeBinding,
  netns: NetnsArg,
  family: "inet" | "ip" | "ip6",
  name: string,
): NftTable | undefined {
  return orElse(undefined, () => binding.nftTable(netns, family, name));
}

function orElse<T>(absent: T, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (codeOf(error) === "EOPNOTSUPP") return absent;
    throw error;
  }
}
