// SPDX-License-Identifier: Apache-2.0
import type { NetnsHandle } from "../../core/ports/netns.ts";
import type { Redirection } from "../../core/redirection.ts";
import type { NativeBinding } from "../../native/binding.ts";
import { isEmpty, type KernelTable, readTables } from "../iptables/kernel.ts";
import { namedDifferences, rulesDigest, stateComment } from "../iptables/observe.ts";
import { type Reference, readReference } from "../iptables/reference.ts";
import type { Ruleset, TableKey, Variant } from "../iptables/ruleset.ts";
import { bodyText } from "../iptables/text.ts";
import { madeTables, removeRules, writeRules } from "../iptables/writer.ts";
import { References } from "../netfilter/references.ts";
import { textHash } from "../netfilter/text-hash.ts";
import { isOurs } from "./foreign.ts";
import { iptablesRules, SIDECAR } from "./iptables-rules.ts";
import { formatState, parseState } from "./state.ts";
import { OTHER_SETTINGS, OTHER_VERSION, type RedirectionWriter } from "./writer.ts";

/** Chains under upstream's names, by one of the two implementations of iptables. */
export class IptablesRedirection implements RedirectionWriter {
  readonly engine = "iptables";
  readonly name: string;
  readonly #references = new References<Reference>();

  constructor(
    private readonly binding: NativeBinding,
    private readonly variant: Variant,
  ) {
    this.name = `iptables-${variant}`;
  }

  differences(netns: NetnsHandle, redirection: Redirection): readonly string[] | undefined {
    const tables = readTables(this.binding, netns.fd, this.variant);
    if (!isOurs(tables)) return undefined;
    const comment = stateComment(SIDECAR, tables);
    const state = comment === undefined ? undefined : parseState(comment);
    if (state === undefined) {
      return [
        comment === undefined
          ? "the rule that says what our chains are is missing"
          : `the rule that says what our chains are ${OTHER_VERSION}: ${JSON.stringify(comment)}`,
      ];
    }
    const { ruleset, body } = this.#planned(redirection);
    if (state.plan !== textHash(body)) return [`the rules were ${OTHER_SETTINGS}`];
    const reference = this.#references.known(body);
    const differences = namedDifferences(SIDECAR, ruleset, tables, reference?.tables);
    if (differences.length === 0 && rulesDigest(SIDECAR, tables) !== (reference?.rules ?? state.rules)) {
      return ["a rule was changed in place"];
    }
    return differences;
  }

  async write(netns: NetnsHandle, redirection: Redirection): Promise<void> {
    const { ruleset, body } = this.#planned(redirection);
    const { binding, variant } = this;
    const reference = await this.#references.of(body, ({ fd }) =>
      readReference(SIDECAR, binding, fd, variant, ruleset),
    );
    const before = readTables(binding, netns.fd, variant);
    const made = madeTables(before, ruleset, variant, madeEarlier(before));
    const state = formatState({ plan: textHash(body), rules: reference.rules, made });
    await writeRules(SIDECAR, binding, netns.fd, variant, ruleset, state, reference.tables);
  }

  async remove(netns: NetnsHandle): Promise<void> {
    const tables = readTables(this.binding, netns.fd, this.variant);
    if (!isOurs(tables)) return;
    await removeRules(SIDECAR, this.binding, netns.fd, this.variant, madeEarlier(tables));
  }

  close(): void {
    this.#references.close();
  }

  #planned(redirection: Redirection): { readonly ruleset: Ruleset; readonly body: string } {
    const ruleset = iptablesRules(redirection);
    return { ruleset, body: bodyText(SIDECAR, ruleset) };
  }
}

/**
 * Tables that were not there before us. An agent that was killed before it wrote that down has made those in which
 * nothing is but ours: nobody misses an empty one.
 */
function madeEarlier(tables: readonly KernelTable[]): readonly TableKey[] {
  const state = parseState(stateComment(SIDECAR, tables) ?? "");
  if (state !== undefined) return state.made;
  return tables.filter((table) => table.chains.some(SIDECAR.owns) && isEmpty(table, SIDECAR.owns));
}
