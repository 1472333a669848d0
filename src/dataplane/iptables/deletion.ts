// SPDX-License-Identifier: Apache-2.0
// Takes chains out of the tables of iptables-nft, and those tables, without a program.
import type { AddressFamily, NativeBinding, NftObject } from "../../native/binding.ts";
import { deleteFound } from "../netfilter/deletion.ts";
import { chainNames } from "../netfilter/tables.ts";
import { isEmpty, type KernelTable, NFT_FAMILY, readTables } from "./kernel.ts";
import { TABLE_NAMES, type TableKey, type TableName } from "./ruleset.ts";
import { jumpsInto } from "./text.ts";

/**
 * Chains with all that leads to them, in one transaction: each rule by the number that the kernel gave it, so that none
 * that somebody puts in meanwhile is hit instead. Of the tables in `tables` those go as a whole in which nothing else is:
 * later nothing would tell whose they are. Idempotent. @throws AgentError NFT_FAILED.
 */
export async function deleteChains(
  binding: NativeBinding,
  netns: number,
  families: readonly AddressFamily[],
  isGoing: (chain: string) => boolean,
  tables: readonly TableKey[] = [],
): Promise<void> {
  await deleteFound(binding, netns, () => {
    const chains = chainNames(binding, netns).filter(({ name }) => isGoing(name));
    return families.flatMap((family) => {
      const mayGo = (name: TableName) => tables.some((key) => key.family === family && key.name === name);
      // Only tables that matter are read.
      const names = TABLE_NAMES.filter(
        (name) => mayGo(name) || chains.some((one) => one.family === NFT_FAMILY[family] && one.table === name),
      );
      if (names.length === 0) return [];
      return readTables(binding, netns, "nft", [family], names).flatMap((table): NftObject[] =>
        mayGo(table.name) && isEmpty(table, isGoing)
          ? [{ family: NFT_FAMILY[family], table: table.name, what: "table" }]
          : objectsOf(table, isGoing),
      );
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
