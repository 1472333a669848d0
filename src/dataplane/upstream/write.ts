// SPDX-License-Identifier: Apache-2.0
// Writes upstream's own rules into a pod, in the form that its agent would use.
import type { CaptureSpec } from "../../core/ports/dataplane.ts";
import type { KernelTable } from "../iptables/kernel.ts";
import { restore } from "../iptables/restore.ts";
import { jumpsInto, writable } from "../iptables/text.ts";
import { nft } from "../nftables/nft.ts";
import { isUpstreamChain, SHIELD_CHAIN } from "./names.ts";
import { JUMPS, type UpstreamTable, upstreamChains, upstreamInetText } from "./rules.ts";
import { shieldLines, shieldTableText } from "./shield.ts";
import type { ChainTraces } from "./traces.ts";

/**
 * In place of what was `found` there of it, one program per family; with the shield, if that is wanted and not there
 * yet. @throws AgentError IPTABLES_FAILED | IPTABLES_MISSING | BAD_*.
 */
export async function writeChains(
  netns: number,
  spec: CaptureSpec,
  { variant, family, tables: found }: ChainTraces,
  shield: boolean,
): Promise<void> {
  const planned = upstreamChains(spec, family);
  const text = planned.map((table) => {
    const same = found.find(({ name }) => name === table.name);
    const shielded = table.name === "nat" && shield && same?.chains.includes(SHIELD_CHAIN) !== true;
    return tableText(table, same, shielded ? shieldLines(family) : []);
  });
  const needless = found.filter(
    ({ name, chains }) => chains.some(isUpstreamChain) && !planned.some((one) => one.name === name),
  );
  await restore(variant, family, netns, [...text, ...needless.map(strippedText)].join(""));
}

/** The same in one transaction. @throws AgentError NFT_FAILED | NFT_MISSING | BAD_*. */
export async function writeInetTables(netns: number, spec: CaptureSpec, shield: boolean): Promise<void> {
  await nft(netns, `${shield ? shieldTableText() : ""}${upstreamInetText(spec)}`);
}

/** A chain that is declared is emptied; a rule that leads to it is to be there once. `first` stands before it. */
function tableText(planned: UpstreamTable, found: KernelTable | undefined, first: readonly string[]): string {
  return [
    `*${planned.name}`,
    ...JUMPS.map(({ chain }) => `:${chain} - [0:0]`),
    ...(found === undefined ? [] : withdrawals(found)),
    ...JUMPS.map(({ from, chain }) => `-A ${from} -j ${chain}`),
    ...JUMPS.flatMap(({ chain, rules }) => planned[rules].map((rule) => `-A ${chain} ${rule}`)),
    ...first,
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
