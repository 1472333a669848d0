// SPDX-License-Identifier: Apache-2.0
import { POD_TABLE } from "../../core/constants.ts";
import { AgentError } from "../../core/errors.ts";
import type { NativeBinding, NftTable } from "../../native/binding.ts";
import { nft } from "./nft.ts";
import { rulesDigest } from "./observe.ts";
import { replaceText } from "./text.ts";

/** What this kernel shows after it has read a body. */
export interface Reference {
  readonly rules: string;
  readonly table: NftTable;
}

/** Reads a body into a scratch netns. @throws AgentError NFT_FAILED | NFT_MISSING. */
export async function readReference(binding: NativeBinding, netns: number, body: string): Promise<Reference> {
  await nft(netns, replaceText(POD_TABLE, "reference", body));
  const table = binding.nftTable(netns, "inet", POD_TABLE);
  if (table === undefined) throw new AgentError("NFT_FAILED", "nft reported success, but the kernel has no table");
  return { rules: rulesDigest(table), table };
}
