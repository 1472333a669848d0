// SPDX-License-Identifier: Apache-2.0
// Takes chains out of the tables of iptables-nft, and those tables, without a program.
import type { AddressFamily, NativeBinding, NftObject } from "../../native/binding.ts";
import { deleteFound } from "../netfilter/deletion.ts";
import { chainNames } from "../netfilter/tables.ts";
import { type KernelTable, NFT_FAMILY, readTables } from "./kernel.ts";
import { TABLE_NAMES } from "./ruleset.ts";
import { jumpsInto } from "./text.ts";

/**
 * Chains with all that leads to them, in one transaction: each rule by the number that the kernel gave it, so that none
 * that somebody puts in meanwhile is hit instead. Idempotent. @throws AgentError NFT_FAILED.
 */
export async function deleteChains(
  binding: NativeBinding,
  netns: number,
  families: readonly AddressFamily[],
  isGoing: (chain: string) => boolean,
): Promise<void> {
  await deleteFound(binding, netns, () => {
    const chains = chainNames(binding, netns).filter(({ name }) => isGoing(name));
    // Only tables that have some are read.
    return families.flatMap((family) => {
      const names = TABLE_NAMES.filter((name) =>
        chains.some(({ family: its, table }) => its === NFT_FAMILY[family] && table === name),
      );
      if (names.length === 0) return [];
      return readTables(binding, netns, "nft", [family], names).flatMap((table) => objectsOf(table, isGoing));
    });
  });
}

function objectsOf(found: KernelTable, isGoing: (chain: string) => boolean): NftObject[] {
  const at = { family: NFT_FAMILY[found.family], table: found.name };
  const chains = found.chains.filter(isGoing);
  return [
    ...jumpsInto(found, isGoing).flatMap(({ rule: { chain, handle } }) =>
      handle === undefined ? [] : [{ ...at, what: "rule" as const, chain, handle }],
    ),
    // They may lead to each other.
    ...chains.map((chain) => ({ ...at, what: "rules" as const, chain })),
    ...chains.map((chain) => ({ ...at, what: "chain" as const, chain })),
  ];
}
