// SPDX-License-Identifier: Apache-2.0
// Are rules of ours those that were written? They carry a digest of themselves, so that who looks while no agent
// runs needs no plan to compare them with.
import { POD_TABLE } from "../core/constants.ts";
import type { KernelFact } from "../core/ports/dataplane.ts";
import type { NativeBinding } from "../native/binding.ts";
import { hasOwned, readTables } from "./iptables/kernel.ts";
import { rulesDigest as chainsDigest, stateComment } from "./iptables/observe.ts";
import { CAPTURE, VARIANTS } from "./iptables/ruleset.ts";
import { parseState as parseRules } from "./iptables/state.ts";
import { tableNames } from "./netfilter/tables.ts";
import { rulesDigest as tableDigest } from "./nftables/observe.ts";
import { parseState as parseTable } from "./nftables/state.ts";

/** None for rules that say nothing of themselves, or that let the pod go. @throws NativeError */
export function writtenFacts(binding: NativeBinding, netns: number): readonly KernelFact[] {
  const facts: KernelFact[] = [];
  const table = tableNames(binding, netns).includes(`inet ${POD_TABLE}`)
    ? binding.nftTable(netns, "inet", POD_TABLE)
    : undefined;
  const state = table === undefined ? undefined : parseTable(table.comment);
  if (table !== undefined && state?.mode === "captured") {
    const whole = !table.dormant && tableDigest(table) === state.rules;
    facts.push(fact("nftables", whole, `the rules of table inet ${POD_TABLE} are not those that were written`));
  }
  for (const variant of VARIANTS) {
    const tables = readTables(binding, netns, variant);
    const comment = hasOwned(CAPTURE, tables) ? stateComment(CAPTURE, tables) : undefined;
    const rules = comment === undefined ? undefined : parseRules(comment);
    if (rules?.mode !== "captured") continue;
    facts.push(
      fact(
        "iptables",
        chainsDigest(CAPTURE, tables) === rules.rules,
        "the chains of ours are not those that were written",
      ),
    );
  }
  return facts;
}

function fact(engine: string, ok: boolean, difference: string): KernelFact {
  return { name: "capture", ok, text: ok ? `${engine}: its rules are those that were written` : difference };
}
