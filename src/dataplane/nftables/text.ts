// SPDX-License-Identifier: Apache-2.0
import type { Chain, Ruleset } from "./ruleset.ts";

/**
 * The body of a table: sets and chains, one rule per line. Deterministic; it is what the table's hash
 * is made of, so whatever may differ between two equal pods (learnt elements, comment) is left out.
 * Sets, then regular chains, then hooked ones: nft resolves names in the order it reads them.
 */
export function bodyText(ruleset: Ruleset, elements: ReadonlyMap<string, readonly string[]> = new Map()): string {
  const lines: string[] = [];
  for (const set of ruleset.sets) {
    const known = elements.get(set.name) ?? [];
    const filled = known.length === 0 ? "" : `; elements = { ${known.join(", ")} }`;
    lines.push(`\tset ${set.name} { ${set.text}${filled}; }`);
  }
  const regularFirst = [...ruleset.chains].sort((a, b) => Number(a.hook !== undefined) - Number(b.hook !== undefined));
  for (const chain of regularFirst) lines.push(...chainLines(chain));
  return `${lines.join("\n")}\n`;
}

function chainLines(chain: Chain): string[] {
  const head =
    chain.hook === undefined
      ? []
      : [`\t\ttype ${chain.hook.type} hook ${chain.hook.hook} priority ${chain.hook.priority}; policy accept;`];
  const rules = chain.rules.map((rule) => `\t\t${rule.text} comment "${rule.name}"`);
  return [`\tchain ${chain.name} {`, ...head, ...rules, "\t}"];
}

/**
 * One transaction that puts a table in the place of whatever had its name: add (so that delete finds
 * one), delete, add. The kernel commits it as a whole: no packet sees a state between.
 */
export function replaceText(table: string, comment: string, body: string): string {
  return `add table inet ${table}\ndelete table inet ${table}\ntable inet ${table} {\n\tcomment "${comment}"\n${body}}\n`;
}

/**
 * One transaction that makes a table where there is none, and fails where there is one. It commits in a
 * third of the time of `replaceText`: nothing waits for packets that may still be in an old table.
 */
export function createText(table: string, comment: string, body: string): string {
  return `create table inet ${table} { comment "${comment}"; }\ntable inet ${table} {\n${body}}\n`;
}

/** One transaction that removes a table and is no error when there is none. */
export function removeText(table: string): string {
  return `add table inet ${table}\ndelete table inet ${table}\n`;
}
