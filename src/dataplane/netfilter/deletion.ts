// SPDX-License-Identifier: Apache-2.0
// Takes objects of nf_tables out of a netns without a program: hundreds of pods at once have no time for one each.
import { AgentError, codeOf, messageOf } from "../../core/errors.ts";
import type { NativeBinding, NftObject } from "../../native/binding.ts";
import { tableNames } from "./tables.ts";

/** Somebody else may take away what was just seen there. */
const ATTEMPTS = 3;

export interface NamedTable {
  readonly family: "inet" | "ip" | "ip6";
  readonly table: string;
}

/** In one transaction; what is not there is no error. @throws AgentError NFT_FAILED. */
export async function deleteTables(
  binding: NativeBinding,
  netns: number,
  tables: readonly NamedTable[],
): Promise<void> {
  if (tables.length === 0) return;
  await deleteFound(binding, netns, () => {
    const present = tableNames(binding, netns);
    return tables
      .filter(({ family, table }) => present.includes(`${family} ${table}`))
      .map(({ family, table }) => ({ what: "table", family, table }));
  });
}

/** What `find` finds, in one transaction; once more when some of it has gone meanwhile. @throws AgentError NFT_FAILED. */
export async function deleteFound(binding: NativeBinding, netns: number, find: () => NftObject[]): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    const objects = find();
    if (objects.length === 0) return;
    try {
      return await binding.nftDelete(netns, objects);
    } catch (error) {
      if (codeOf(error) === "ENOENT" && attempt < ATTEMPTS) continue;
      throw new AgentError("NFT_FAILED", messageOf(error), undefined, { cause: error });
    }
  }
}
