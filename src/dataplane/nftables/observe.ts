// SPDX-License-Identifier: Apache-2.0
// Is the table in the kernel the one that was planned? The reference is what the same kernel showed
// after it had read the same text, so nft's translation needs no second implementation here.
import { createHash } from "node:crypto";
import type { NftTable } from "../../native/binding.ts";
import { HOOK_NUMBER, type Ruleset } from "./ruleset.ts";

/** One digest over hooks and rules in the order in which the kernel walks them; counters don't count. */
export function rulesDigest(table: NftTable): string {
  const hash = createHash("sha256");
  for (const chain of [...table.chains].sort((a, b) => (a.name < b.name ? -1 : 1))) {
    hash.update(`chain ${chain.name} ${chain.type} ${chain.hook} ${chain.priority} ${chain.policy}\n`);
    for (const rule of table.rules) if (rule.chain === chain.name) hash.update(`${rule.digest}\n`);
  }
  for (const set of namedSets(table)) hash.update(`set ${set}\n`);
  return hash.digest("hex").slice(0, 16);
}

/** Sentences that name what is missing, extra, moved or changed; empty when chains and names agree. */
export function namedDifferences(plan: Ruleset, table: NftTable, reference: NftTable | undefined): string[] {
  const sentences: string[] = [];
  if (table.dormant) sentences.push("the table is dormant: none of its rules is in force");
  for (const chain of plan.chains) {
    const found = table.chains.find(({ name }) => name === chain.name);
    if (found === undefined) {
      sentences.push(`chain ${chain.name} is missing`);
      continue;
    }
    const hook = chain.hook === undefined ? -1 : HOOK_NUMBER[chain.hook.hook];
    if (found.hook !== hook || (chain.hook !== undefined && found.priority !== chain.hook.priority)) {
      sentences.push(`chain ${chain.name} hangs on hook ${found.hook} with priority ${found.priority}`);
    }
    if (found.policy === "drop") sentences.push(`chain ${chain.name} drops what no rule decides`);
    const wanted = chain.rules.map(({ name }) => name);
    const rules = table.rules.filter((rule) => rule.chain === chain.name);
    if (rules.length === 0 && wanted.length > 0) {
      sentences.push(`chain ${chain.name} is empty`);
      continue;
    }
    const names = rules.map(({ comment }) => comment);
    const missing = wanted.filter((name) => !names.includes(name));
    const extra = names.filter((name) => !wanted.includes(name));
    for (const name of missing) sentences.push(`rule ${name} of chain ${chain.name} is missing`);
    for (const name of extra) sentences.push(`chain ${chain.name} has a rule that is not ours: ${quoted(name)}`);
    if (missing.length === 0 && extra.length === 0 && names.join() !== wanted.join()) {
      sentences.push(`the rules of chain ${chain.name} are out of order`);
    }
    if (reference === undefined) continue;
    for (const rule of rules) {
      const twin = reference.rules.find(({ chain: of, comment }) => of === chain.name && comment === rule.comment);
      if (twin !== undefined && twin.digest !== rule.digest) {
        sentences.push(`rule ${rule.comment} of chain ${chain.name} was changed`);
      }
    }
  }
  for (const { name } of table.chains) {
    if (!plan.chains.some((chain) => chain.name === name)) sentences.push(`chain ${quoted(name)} is not ours`);
  }
  const sets = namedSets(table);
  for (const { name } of plan.sets) if (!sets.includes(name)) sentences.push(`set ${name} is missing`);
  return sentences;
}

/** The kernel names anonymous sets __set0, __map0, ...; the rules that use them are digested. */
function namedSets(table: NftTable): string[] {
  return table.sets.filter((name) => !name.startsWith("__")).sort();
}

/** Text of somebody else's making, cut for a message. */
function quoted(text: string): string {
  return JSON.stringify(text.slice(0, 64));
}
