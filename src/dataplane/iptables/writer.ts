// SPDX-License-Identifier: Apache-2.0
// Puts chains into a netns and takes them out again, each table as a whole.
import type { PlannedChange } from "../../core/ports/plan.ts";
import type { AddressFamily, NativeBinding } from "../../native/binding.ts";
import { deleteChains } from "./deletion.ts";
import { type KernelRule, type KernelTable, readTables } from "./kernel.ts";
import { namedDifferences } from "./observe.ts";
import { restore, restoreCommand } from "./restore.ts";
import type { Owner, Ruleset, TableKey, Variant } from "./ruleset.ts";
import { type IsPlain, removeText, replaceText } from "./text.ts";

const FAMILIES: readonly AddressFamily[] = [4, 6];

/**
 * Puts the planned chains in the place of ours, one program per family, IPv4 first: its first table
 * holds `state`, so that whoever finds a half-written pod knows what to undo.
 * @throws AgentError IPTABLES_FAILED | IPTABLES_MISSING.
 */
export async function writeRules(
  owner: Owner,
  binding: NativeBinding,
  netns: number,
  variant: Variant,
  ruleset: Ruleset,
  state: string,
  reference: readonly KernelTable[] | undefined,
): Promise<void> {
  const isPlain: IsPlain = (table, rule) => reference !== undefined && isTwin(reference, table, rule);
  for (const family of FAMILIES) {
    const tables = readTables(binding, netns, variant, [family]);
    // A table that is right is left alone: each commit waits for the packets that are on their way.
    const isWrong = (key: TableKey) => !isRight(owner, key, ruleset, tables, reference);
    const text = replaceText(owner, ruleset.filter(isWrong), family, tables.filter(isWrong), state, isPlain);
    if (text !== "") await restore(variant, family, netns, text);
  }
}

/** What `writeRules` would write where nothing of the owner's is. Pure. */
export function plannedRules(owner: Owner, variant: Variant, ruleset: Ruleset, state: string): PlannedChange[] {
  return FAMILIES.map((family) => ({
    what: `${restoreCommand(variant, family).join(" ")} in the pod`,
    text: replaceText(owner, ruleset, family, [], state, () => false).trimEnd(),
  })).filter(({ text }) => text !== "");
}

/**
 * Takes everything of ours out, then the tables of iptables-nft that we made, if nothing else is in
 * them. A legacy table stays in its netns for ever: the kernel has no way to remove one.
 * @throws AgentError IPTABLES_FAILED | IPTABLES_MISSING | NFT_FAILED.
 */
export async function removeRules(
  owner: Owner,
  binding: NativeBinding,
  netns: number,
  variant: Variant,
  made: readonly TableKey[],
): Promise<void> {
  if (variant === "legacy") {
    // Memory is in IPv4: it goes last.
    for (const family of [...FAMILIES].reverse()) await removeFamily(owner, binding, netns, family);
    return;
  }
  await deleteChains(binding, netns, FAMILIES, owner.owns, made);
}

/** Tables of nf_tables that a ruleset makes in a netns, and those that an `earlier` one has made. */
export function madeTables(
  before: readonly KernelTable[],
  ruleset: Ruleset,
  variant: Variant,
  earlier: readonly TableKey[],
): TableKey[] {
  if (variant === "legacy") return [];
  const now = ruleset
    .filter(({ family, name }) => !before.some((table) => table.family === family && table.name === name))
    .map(({ family, name }) => ({ family, name }));
  return [...earlier.filter((key) => !now.some((one) => one.family === key.family && one.name === key.name)), ...now];
}

/** Of legacy iptables. */
async function removeFamily(owner: Owner, binding: NativeBinding, netns: number, family: AddressFamily): Promise<void> {
  const read = () => readTables(binding, netns, "legacy", [family]);
  const text = (isPlain: IsPlain) => removeText(owner, family, read(), isPlain);
  const first = text((_, { comment }) => comment === owner.jumpComment);
  if (first === "") return;
  try {
    await restore("legacy", family, netns, first);
  } catch {
    // A jump that is not what its comment says is found by its number only.
    const numbered = text(() => false);
    if (numbered !== "") await restore("legacy", family, netns, numbered);
  }
}

/** The one with our memory is always written. */
function isRight(
  owner: Owner,
  key: TableKey,
  ruleset: Ruleset,
  tables: readonly KernelTable[],
  reference: readonly KernelTable[] | undefined,
): boolean {
  const same = (table: TableKey) => table.family === key.family && table.name === key.name;
  if (reference === undefined || same(owner.stateTable) || !ruleset.some(same) || !tables.some(same)) return false;
  return namedDifferences(owner, ruleset.filter(same), tables.filter(same), reference).length === 0;
}

function isTwin(reference: readonly KernelTable[], { family, name }: KernelTable, rule: KernelRule): boolean {
  const twin = reference.find((table) => table.family === family && table.name === name);
  return twin?.rules.some(({ chain, digest }) => chain === rule.chain && digest === rule.digest) === true;
}
