// SPDX-License-Identifier: Apache-2.0
// Writes upstream's own rules into a pod, in the form that its agent would use.
import type { CaptureSpec } from "../../core/ports/dataplane.ts";
import type { AddressFamily, NativeBinding } from "../../native/binding.ts";
import { type KernelTable, readTables } from "../iptables/kernel.ts";
import { restore } from "../iptables/restore.ts";
import type { Variant } from "../iptables/ruleset.ts";
import { jumpsInto, writable } from "../iptables/text.ts";
import { nft } from "../nftables/nft.ts";
import { isUpstreamChain } from "./names.ts";
import { JUMPS, type UpstreamTable, upstreamChains, upstreamInetText } from "./rules.ts";

/** In place of whatever is there of it. @throws AgentError IPTABLES_FAILED | IPTABLES_MISSING | BAD_*. */
export async function writeChains(
  binding: NativeBinding,
  netns: number,
  spec: CaptureSpec,
  variant: Variant,
  family: AddressFamily,
): Promise<void> {
  const found = readTables(binding, netns, variant, [family]);
  const planned = upstreamChains(spec, family);
  const text = planned.map((table) =>
    tableText(
      table,
      found.find(({ name }) => name === table.name),
    ),
  );
  const needless = found.filter(
    ({ name, chains }) => chains.some(isUpstreamChain) && !planned.some((one) => one.name === name),
  );
  await restore(variant, family, netns, [...text, ...needless.map(strippedText)].join(""));
}

/** @throws AgentError NFT_FAILED | NFT_MISSING | BAD_*. */
export async function writeInetTables(netns: number, spec: CaptureSpec): Promise<void> {
  await nft(netns, upstreamInetText(spec));
}

/** A chain that is declared is emptied; a rule that leads to it is to be there once. */
function tableText(planned: UpstreamTable, found: KernelTable | undefined): string {
  return [
    `*${planned.name}`,
    ...JUMPS.map(({ chain }) => `:${chain} - [0:0]`),
    ...(found === undefined ? [] : withdrawals(found)),
    ...JUMPS.map(({ from, chain }) => `-A ${from} -j ${chain}`),
    ...JUMPS.flatMap(({ chain, rules }) => planned[rules].map((rule) => `-A ${chain} ${rule}`)),
    "COMMIT",
    "",
  ].join("\n");
}

function strippedText(found: KernelTable): string {
  const going = found.chains.filter(isUpstreamChain);
  return [
    `*${found.name}`,
    ...withdrawals(found),
    ...going.map((name) => `-F ${name}`),
    ...going.map((name) => `-X ${name}`),
    "COMMIT",
    "",
  ].join("\n");
}

/** By number, last ones first. */
function withdrawals(found: KernelTable): string[] {
  return jumpsInto(found, isUpstreamChain)
    .reverse()
    .map(({ rule, number }) => `-D ${writable(rule.chain)} ${number}`);
}
