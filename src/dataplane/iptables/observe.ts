// SPDX-License-Identifier: Apache-2.0
// Are the chains in the kernel those that were planned? The reference is what the same kernel showed
// after the same iptables-restore had read the same text.
import { createHash } from "node:crypto";
import type { KernelRule, KernelTable } from "./kernel.ts";
import { type BuiltIn, type Chain, type Owner, type Ruleset, type Table, tableTitle } from "./ruleset.ts";
import { foreignJumps } from "./text.ts";

/** The comment of the state rule, "" for a rule without one, undefined when there is no such rule. */
export function stateComment(owner: Owner, tables: readonly KernelTable[]): string | undefined {
  const table = tables.find((one) => isSame(one, owner.stateTable));
  const rules = table?.rules.filter(({ chain }) => chain === owner.stateChain) ?? [];
  return rules.length === 1 ? rules[0]?.comment : undefined;
}

/** One digest over our rules and those that lead to them, in the order in which the kernel walks them. */
export function rulesDigest(owner: Owner, tables: readonly KernelTable[]): string {
  const hash = createHash("sha256");
  const key = ({ family, name }: KernelTable) => `${family} ${name}`;
  for (const table of [...tables].sort((a, b) => (key(a) < key(b) ? -1 : 1))) {
    const chains = table.chains.filter((name) => owner.owns(name) && name !== owner.stateChain).sort();
    if (chains.length === 0) continue;
    hash.update(`table ${key(table)}\n`);
    for (const chain of chains) {
      hash.update(`chain ${chain}\n`);
      for (const rule of rulesOf(table, chain)) hash.update(`${rule.digest}\n`);
    }
    for (const digest of foreignJumps(owner, table)
      .map(({ rule }) => rule.digest)
      .sort())
      hash.update(`jump ${digest}\n`);
  }
  return hash.digest("hex").slice(0, 16);
}

/** Sentences that name what is missing, extra, moved or changed; empty when chains and names agree. */
export function namedDifferences(
  owner: Owner,
  plan: Ruleset,
  tables: readonly KernelTable[],
  reference: readonly KernelTable[] | undefined,
): string[] {
  const sentences: string[] = [];
  for (const planned of plan) {
    const found = tables.find((table) => isSame(table, planned));
    const twin = reference?.find((table) => isSame(table, planned));
    if (found?.dormant) sentences.push(`${tableTitle(planned)} is dormant: none of its rules is in force`);
    for (const chain of planned.chains) sentences.push(...chainDifferences(owner, planned, chain, found, twin));
  }
  for (const table of tables) {
    const planned = plan.find((one) => isSame(table, one));
    for (const name of table.chains.filter((chain) => owner.owns(chain))) {
      if (planned?.chains.some((chain) => chain.name === name) || isStateChain(owner, table, name)) continue;
      sentences.push(`chain ${name} of ${tableTitle(table)} is not planned`);
    }
    sentences.push(...strayJumps(owner, table, planned));
  }
  return sentences;
}

function chainDifferences(
  owner: Owner,
  planned: Table,
  chain: Chain,
  found: KernelTable | undefined,
  twin: KernelTable | undefined,
): string[] {
  const title = `chain ${chain.name} of ${tableTitle(planned)}`;
  if (found === undefined || !found.chains.includes(chain.name)) return [`${title} is missing`];
  const sentences = chain.from === undefined ? [] : jumpDifferences(owner, chain.name, chain.from, found, twin);
  const rules = rulesOf(found, chain.name);
  const wanted = chain.rules.map(({ name }) => name);
  if (rules.length === 0 && wanted.length > 0) return [...sentences, `${title} is empty`];
  const names = rules.map(({ comment }) => comment);
  const missing = wanted.filter((name) => !names.includes(name));
  const extra = names.filter((name) => !wanted.includes(name));
  for (const name of missing) sentences.push(`rule ${name} of ${title} is missing`);
  for (const name of extra)
    sentences.push(`${title} has a rule that is not ours: ${JSON.stringify(name.slice(0, 64))}`);
  if (missing.length === 0 && extra.length === 0 && names.join() !== wanted.join()) {
    sentences.push(`the rules of ${title} are out of order`);
  }
  for (const rule of rules) {
    const same = twin?.rules.find(({ chain: of, comment }) => of === chain.name && comment === rule.comment);
    if (same !== undefined && same.digest !== rule.digest)
      sentences.push(`rule ${rule.comment} of ${title} was changed`);
  }
  return sentences;
}

/** The first rule of the built-in chain must lead to ours: whatever stands before it may decide first. */
function jumpDifferences(
  owner: Owner,
  name: string,
  from: BuiltIn,
  found: KernelTable,
  twin: KernelTable | undefined,
): string[] {
  const where = `chain ${from} of ${tableTitle(found)}`;
  const jumps = foreignJumps(owner, found).filter(({ rule }) => rule.chain === from && rule.jump === name);
  const [first] = jumps;
  if (first === undefined) return [`${where} does not lead to ${name}`];
  const sentences: string[] = [];
  if (first.number !== 1) sentences.push(`${where} has rules before the one that leads to ${name}`);
  if (jumps.length > 1) sentences.push(`${where} leads to ${name} ${jumps.length} times`);
  const same = twin?.rules.find(({ chain, jump }) => chain === from && jump === name);
  if (same !== undefined && same.digest !== first.rule.digest) {
    sentences.push(`the rule of ${where} that leads to ${name} was changed`);
  }
  return sentences;
}

function strayJumps(owner: Owner, table: KernelTable, planned: Table | undefined): string[] {
  const isPlanned = ({ chain, jump }: KernelRule) =>
    planned?.chains.some(({ name, from }) => name === jump && from === chain) === true;
  return foreignJumps(owner, table)
    .filter(({ rule }) => !isPlanned(rule))
    .map(
      ({ rule }) => `chain ${JSON.stringify(rule.chain.slice(0, 64))} of ${tableTitle(table)} leads to ${rule.jump}`,
    );
}

function rulesOf(table: KernelTable, chain: string): readonly KernelRule[] {
  return table.rules.filter((rule) => rule.chain === chain);
}

function isSame(a: Pick<Table, "family" | "name">, b: Pick<Table, "family" | "name">): boolean {
  return a.family === b.family && a.name === b.name;
}

function isStateChain(owner: Owner, table: KernelTable, name: string): boolean {
  return name === owner.stateChain && isSame(table, owner.stateTable);
}
