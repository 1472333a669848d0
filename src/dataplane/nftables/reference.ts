// SPDX-License-Identifier: Apache-2.0
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

/** Reads the body of the table `name` into a scratch netns. @throws AgentError NFT_FAILED | NFT_MISSING. */
export async function readReference(
  binding: NativeBinding,
  netns: number,
  name: string,
  body: string,
): Promise<Reference> {
  await nft(netns, replaceText(name, "reference", body));
  const table = binding.nftTable(netns, "inet", name);
  if (table === undefined) throw new AgentError("NFT_FAILED", "nft reported success, but the kernel has no table");
  return { rules: rulesDigest(table), table };
}
