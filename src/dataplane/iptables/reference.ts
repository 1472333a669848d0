// SPDX-License-Identifier: Apache-2.0
import type { NativeBinding } from "../../native/binding.ts";
import { type KernelTable, readTables } from "./kernel.ts";
import { rulesDigest } from "./observe.ts";
import type { Owner, Ruleset, Variant } from "./ruleset.ts";
import { writeRules } from "./writer.ts";

/** What this kernel shows after one variant of iptables-restore has read a plan. */
export interface Reference {
  readonly rules: string;
  readonly tables: readonly KernelTable[];
}

/** Reads a plan into a scratch netns. @throws AgentError IPTABLES_FAILED | IPTABLES_MISSING. */
export async function readReference(
  owner: Owner,
  binding: NativeBinding,
  netns: number,
  variant: Variant,
  ruleset: Ruleset,
): Promise<Reference> {
  await writeRules(owner, binding, netns, variant, ruleset, "reference", undefined);
  const tables = readTables(binding, netns, variant);
  return { rules: rulesDigest(owner, tables), tables };
}
