// SPDX-License-Identifier: Apache-2.0
import { SIDECAR_TABLE } from "../../core/constants.ts";
import type { NetnsHandle } from "../../core/ports/netns.ts";
import type { Redirection } from "../../core/redirection.ts";
import type { NativeBinding, NftTable } from "../../native/binding.ts";
import { References } from "../netfilter/references.ts";
import { tableNamed } from "../netfilter/tables.ts";
import { textHash } from "../netfilter/text-hash.ts";
import { nft } from "../nftables/nft.ts";
import { namedDifferences, rulesDigest } from "../nftables/observe.ts";
import { type Reference, readReference } from "../nftables/reference.ts";
import { bodyText, createText, removeText, replaceText } from "../nftables/text.ts";
import { nftablesRules } from "./nftables-rules.ts";
import { formatState, parseState } from "./state.ts";
import { OTHER_SETTINGS, OTHER_VERSION, type RedirectionWriter } from "./writer.ts";

/** One `inet` table per pod, replaced as a whole. */
export class NftablesRedirection implements RedirectionWriter {
  readonly engine = "nftables";
  readonly name = "nftables";
  readonly #references = new References<Reference>();

  constructor(private readonly binding: NativeBinding) {}

  differences(netns: NetnsHandle, redirection: Redirection): readonly string[] | undefined {
    const table = this.#table(netns);
    if (table === undefined) return undefined;
    const state = parseState(table.comment);
    if (state === undefined) {
      return [`the table's comment ${OTHER_VERSION}: ${JSON.stringify(table.comment)}`];
    }
    const ruleset = nftablesRules(redirection);
    const body = bodyText(ruleset);
    if (state.plan !== textHash(body)) return [`the table was ${OTHER_SETTINGS}`];
    const reference = this.#references.known(body);
    const differences = namedDifferences(ruleset, table, reference?.table);
    if (differences.length === 0 && rulesDigest(table) !== (reference?.rules ?? state.rules)) {
      return ["a rule was changed in place"];
    }
    return differences;
  }

  async write(netns: NetnsHandle, redirection: Redirection): Promise<void> {
    const body = bodyText(nftablesRules(redirection));
    const { rules } = await this.#references.of(body, ({ fd }) => readReference(this.binding, fd, SIDECAR_TABLE, body));
    const comment = formatState({ plan: textHash(body), rules, made: [] });
    const write = this.#table(netns) === undefined ? createText : replaceText;
    await nft(netns.fd, write(SIDECAR_TABLE, comment, body));
  }

  async remove(netns: NetnsHandle): Promise<void> {
    if (this.#table(netns) !== undefined) await nft(netns.fd, removeText(SIDECAR_TABLE));
  }

  close(): void {
    this.#references.close();
  }

  #table(netns: NetnsHandle): NftTable | undefined {
    return tableNamed(this.binding, netns.fd, "inet", SIDECAR_TABLE);
  }
}
