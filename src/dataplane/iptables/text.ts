// SPDX-License-Identifier: Apache-2.0
// What iptables-restore is given.
import { AgentError } from "../../core/errors.ts";
import type { AddressFamily } from "../../native/binding.ts";
import type { KernelRule, KernelTable } from "./kernel.ts";
import { type Chain, type Owner, type Rule, type Ruleset, TABLE_NAMES, type Table, tableTitle } from "./ruleset.ts";

/** What refuses goes before what steers, memory last. */
const REMOVAL = ["filter", "nat", "mangle", "raw"] as const satisfies (typeof TABLE_NAMES)[number][];

/** Is this rule, which jumps into a chain of ours, the very one that we write? */
export type IsPlain = (table: KernelTable, rule: KernelRule) => boolean;

/** The whole plan as text: deterministic, it is what its hash is made of. */
export function bodyText(owner: Owner, ruleset: Ruleset): string {
  return ruleset
    .map((table) => `# ${tableTitle(table)}\n${tableText(owner, table, undefined, undefined, never)}${lateText(table)}`)
    .join("");
}

/**
 * Text that puts the planned chains of one family in the place of what is there; `found` as just read.
 * A chain that is read again is emptied by its declaration. A table that is not planned loses ours.
 */
export function replaceText(
  owner: Owner,
  ruleset: Ruleset,
  family: AddressFamily,
  found: readonly KernelTable[],
  state: string,
  isPlain: IsPlain,
): string {
  const late = ruleset.filter((table) => table.family === family).map(lateText);
  const early = TABLE_NAMES.map((name) => {
    const planned = ruleset.find((table) => table.family === family && table.name === name);
    const there = found.find((table) => table.family === family && table.name === name);
    if (planned !== undefined) return tableText(owner, planned, there, state, isPlain);
    return there === undefined ? "" : strippedText(owner, there, isPlain);
  });
  return [...early, ...late].join("");
}

/** Text that takes everything of ours out of the tables of one family; "" when nothing is there. */
export function removeText(
  owner: Owner,
  family: AddressFamily,
  found: readonly KernelTable[],
  isPlain: IsPlain,
): string {
  return REMOVAL.map((name) => {
    const there = found.find((table) => table.family === family && table.name === name);
    return there === undefined ? "" : strippedText(owner, there, isPlain);
  }).join("");
}

function tableText(
  owner: Owner,
  table: Table,
  found: KernelTable | undefined,
  state: string | undefined,
  isPlain: IsPlain,
): string {
  const { stateChain, stateTable } = owner;
  const keepsState = state !== undefined && table.family === stateTable.family && table.name === stateTable.name;
  const names = [...table.chains.map(({ name }) => name), ...(keepsState ? [stateChain] : [])];
  const stale = (found?.chains ?? []).filter((name) => owner.owns(name) && !names.includes(name));
  return [
    `*${table.name}`,
    ...names.map((name) => `:${name} - [0:0]`),
    ...(keepsState ? [`-A ${stateChain} ${comment(state)}`] : []),
    ...ruleLines(table, (rule) => rule.late === undefined),
    ...jumpLines(owner, table.chains, found, isPlain),
    ...stale.map((name) => `-F ${name}`),
    ...stale.map((name) => `-X ${name}`),
    "COMMIT",
    "",
  ].join("\n");
}

/** Behind what `tableText` has written; "" without such rules. */
function lateText(table: Table): string {
  const lines = ruleLines(table, (rule) => rule.late === true);
  return lines.length === 0 ? "" : [`*${table.name}`, ...lines, "COMMIT", ""].join("\n");
}

function ruleLines({ chains }: Table, isMeant: (rule: Rule) => boolean): string[] {
  return chains.flatMap(({ name, rules }) =>
    rules.filter(isMeant).map((rule) => `-A ${name} ${withComment(rule.text, rule.name)}`),
  );
}

function strippedText(owner: Owner, found: KernelTable, isPlain: IsPlain): string {
  const ours = found.chains.filter((name) => owner.owns(name));
  if (ours.length === 0) return "";
  return [
    `*${found.name}`,
    ...withdrawals(owner, found, isPlain),
    ...ours.map((name) => `-F ${name}`),
    ...ours.map((name) => `-X ${name}`),
    "COMMIT",
    "",
  ].join("\n");
}

/** Leaves jumps alone where they are right: each once, the first rule of its chain, and no others. */
function jumpLines(owner: Owner, chains: readonly Chain[], found: KernelTable | undefined, isPlain: IsPlain): string[] {
  const wanted = chains.flatMap(({ name, from }) => (from === undefined ? [] : [{ name, from }]));
  if (found !== undefined && jumpsAreRight(owner, wanted, found, isPlain)) return [];
  return [
    ...(found === undefined ? [] : withdrawals(owner, found, isPlain)),
    ...wanted.map(({ name, from }) => `-I ${from} 1 ${jumpText(owner, name)}`),
  ];
}

function jumpsAreRight(
  owner: Owner,
  wanted: readonly { readonly name: string; readonly from: string }[],
  found: KernelTable,
  isPlain: IsPlain,
): boolean {
  const jumps = foreignJumps(owner, found);
  return (
    jumps.length === wanted.length &&
    wanted.every(({ name, from }) =>
      jumps.some(
        ({ rule, number }) => rule.chain === from && rule.jump === name && number === 1 && isPlain(found, rule),
      ),
    )
  );
}

/**
 * Deletes the rules that lead into ours. By what they say, so that a rule that another program puts in
 * at this moment can't be hit instead; by number only where somebody has changed one, last ones first.
 */
function withdrawals(owner: Owner, found: KernelTable, isPlain: IsPlain): string[] {
  const jumps = foreignJumps(owner, found);
  const changed = jumps.filter(({ rule }) => !isPlain(found, rule)).reverse();
  const plain = jumps.filter(({ rule }) => isPlain(found, rule));
  return [
    ...changed.map(({ rule, number }) => `-D ${writable(rule.chain)} ${number}`),
    ...plain.map(({ rule }) => `-D ${writable(rule.chain)} ${jumpText(owner, rule.jump)}`),
  ];
}

export interface NumberedRule {
  readonly rule: KernelRule;
  /** In its chain, from 1. */
  readonly number: number;
}

/** Rules outside the owner's chains that jump into one of them. */
export function foreignJumps(owner: Owner, found: KernelTable): NumberedRule[] {
  return jumpsInto(found, owner.owns);
}

/** Rules outside some chains that jump into one of them. */
export function jumpsInto(found: KernelTable, isOneOf: (chain: string) => boolean): NumberedRule[] {
  const numbers = new Map<string, number>();
  const jumps: NumberedRule[] = [];
  for (const rule of found.rules) {
    const number = (numbers.get(rule.chain) ?? 0) + 1;
    numbers.set(rule.chain, number);
    if (!isOneOf(rule.chain) && isOneOf(rule.jump)) jumps.push({ rule, number });
  }
  return jumps;
}

function jumpText(owner: Owner, chain: string): string {
  return `${comment(owner.jumpComment)} -j ${chain}`;
}

/** The comment goes before the target, whose options come last. */
function withComment(text: string, name: string): string {
  const at = text.search(/(?<=^| )-j /);
  return `${text.slice(0, at)}${comment(name)} ${text.slice(at)}`;
}

function comment(text: string): string {
  return `-m comment --comment "${text}"`;
}

/** The kernel takes any bytes for a chain's name, iptables-restore would take some of them for options. */
export function writable(chain: string): string {
  if (/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,27}$/.test(chain)) return chain;
  throw new AgentError(
    "IPTABLES_FAILED",
    `a chain of the pod leads to where it can't stay, and can't be named: ${JSON.stringify(chain)}`,
  );
}

function never(): boolean {
  return false;
}
