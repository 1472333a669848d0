// SPDX-License-Identifier: Apache-2.0
// Takes away what upstream's agent has written with nft: whole tables of its own.
import type { NativeBinding } from "../../native/binding.ts";
import { deleteTables } from "../netfilter/deletion.ts";
import { nft } from "../nftables/nft.ts";
import { NAT_TABLE } from "./names.ts";

/** As `endChains`: without rules the chains still hook, so that what was redirected goes on. @throws AgentError. */
export async function endTables(netns: number, tables: readonly string[]): Promise<void> {
  if (tables.includes(NAT_TABLE)) await nft(netns, `flush table inet ${NAT_TABLE}\n`);
}

/** In one transaction. @throws AgentError. */
export async function removeInetTables(
  binding: NativeBinding,
  netns: number,
  tables: readonly string[],
): Promise<void> {
  await deleteTables(
    binding,
    netns,
    tables.map((table) => ({ family: "inet", table })),
  );
}
