// SPDX-License-Identifier: Apache-2.0
// Takes away what upstream's agent has written with iptables, each table as a whole.
import type { NativeBinding } from "../../native/binding.ts";
import { deleteChains } from "../iptables/deletion.ts";
import { type KernelRule, type KernelTable, readTables } from "../iptables/kernel.ts";
import { restore } from "../iptables/restore.ts";
import { CAPTURE, type TableName } from "../iptables/ruleset.ts";
import { jumpsInto, writable } from "../iptables/text.ts";
import { isUpstreamChain, SHIELD_CHAIN } from "./names.ts";
import { type ChainTraces, redirects, tracesIn } from "./traces.ts";

/** Steering goes first. Connections that it has redirected live by what mangle holds: that goes last. */
const ORDER: readonly TableName[] = ["nat", "raw", "mangle"];

/**
 * Takes the redirecting rules away. What keeps the connections alive that they have redirected stays: the
 * hooks of table nat, and in table mangle the rules that remember ztunnel's legs, by which conntrack stays in
 * use. @throws AgentError IPTABLES_FAILED | IPTABLES_MISSING.
 */
export async function endChains(netns: number, { variant, family, tables }: ChainTraces): Promise<void> {
  const lines = tables
    .filter(redirects)
    .flatMap(({ chains }) => chains.filter(isUpstreamChain).map((name) => `-F ${name}`));
  if (lines.length > 0) await restore(variant, family, netns, ["*nat", ...lines, "COMMIT", ""].join("\n"));
}

/**
 * Takes chains away, all by default, with the rules that lead to them, then the tables of iptables-nft that are
 * empty now. What others have put into upstream's chains goes with them, as when it un-enrols a pod.
 * @throws AgentError IPTABLES_FAILED | IPTABLES_MISSING | NFT_FAILED.
 */
export async function removeChains(
  binding: NativeBinding,
  netns: number,
  { variant, family, tables }: ChainTraces,
  isGoing: (chain: string) => boolean = isTrace,
): Promise<void> {
  if (variant === "nft") {
    await deleteChains(binding, netns, [family], isGoing, tables);
    return;
  }
  const text = removalText(tables, isGoing, true);
  if (text === "") return;
  try {
    await restore(variant, family, netns, text);
  } catch {
    // A jump that says more than its target is found by its number only.
    const left = tracesIn(readTables(binding, netns, variant, [family]));
    await restore(variant, family, netns, removalText(left, isGoing, false));
  }
}

/** `plain`: jumps are deleted by what they say, so that no rule that comes in meanwhile is hit instead. */
function removalText(tables: readonly KernelTable[], isGoing: (chain: string) => boolean, plain: boolean): string {
  return ORDER.map((name) => tables.find((table) => table.name === name))
    .filter((table) => table !== undefined)
    .filter(({ chains }) => chains.some(isGoing))
    .map((table) => tableText(table, isGoing, plain))
    .join("");
}

function tableText(table: KernelTable, isGoing: (chain: string) => boolean, plain: boolean): string {
  const going = table.chains.filter(isGoing);
  const jumps = jumpsInto(table, isGoing);
  const withdrawals = plain
    ? jumps.map(({ rule }) => `-D ${writable(rule.chain)} ${jumpText(rule)}`)
    : jumps.reverse().map(({ rule, number }) => `-D ${writable(rule.chain)} ${number}`);
  return [
    `*${table.name}`,
    ...withdrawals,
    ...going.map((name) => `-F ${name}`),
    ...going.map((name) => `-X ${name}`),
    "COMMIT",
    "",
  ].join("\n");
}

function jumpText({ jump }: KernelRule): string {
  return jump === SHIELD_CHAIN ? `-m comment --comment "${CAPTURE.jumpComment}" -j ${jump}` : `-j ${jump}`;
}

function isTrace(name: string): boolean {
  return isUpstreamChain(name) || isShield(name);
}

/** For `removeChains`: ours alone. */
export function isShield(name: string): boolean {
  return name === SHIELD_CHAIN;
}
