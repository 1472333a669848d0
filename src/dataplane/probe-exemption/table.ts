// SPDX-License-Identifier: Apache-2.0
import { HOST_TABLE } from "../../core/constants.ts";
import { canonicalIp } from "../../core/ip.ts";
import type { NetnsHandle } from "../../core/ports/netns.ts";
import type { NativeBinding } from "../../native/binding.ts";
import { namedDifferences, rulesDigest } from "../nftables/observe.ts";
import type { Ruleset } from "../nftables/ruleset.ts";
import { bodyText } from "../nftables/text.ts";
import { checkedUid, type Owners, probesComment, SET_OF } from "./plan.ts";

/** Reads the host's table; never writes. */
export class HostTable {
  /** Digest of the rules as this kernel showed them right after our own write, by plan text. */
  #reference: { readonly body: string; readonly rules: string } | undefined;

  constructor(
    private readonly binding: NativeBinding,
    private readonly host: NetnsHandle,
  ) {}

  /** Elements whose key and comment can be ours. Anything else in our sets is left behind at the next rewrite. */
  owners(): Owners {
    const owners = new Map<string, string>();
    const table = this.binding.nftTable(this.host.fd, "inet", HOST_TABLE);
    for (const set of Object.values(SET_OF)) {
      if (!table?.sets.includes(set)) continue;
      for (const { key, comment } of this.binding.nftSet(this.host.fd, "inet", HOST_TABLE, set)) {
        try {
          owners.set(canonicalIp(key), checkedUid(comment));
        } catch {
          // Written by hand: an address without an owner belongs to no pod.
        }
      }
    }
    return owners;
  }

  /** Call right after a write of ours. */
  remember(plan: Ruleset): void {
    const table = this.binding.nftTable(this.host.fd, "inet", HOST_TABLE);
    this.#reference = table === undefined ? undefined : { body: bodyText(plan), rules: rulesDigest(table) };
  }

  /** Sentences; empty when the table is the planned one. Elements are not looked at. */
  differences(plan: Ruleset): string[] {
    const table = this.binding.nftTable(this.host.fd, "inet", HOST_TABLE);
    if (table === undefined) return [`table inet ${HOST_TABLE} is missing`];
    if (table.comment !== probesComment(plan)) return ["the table was made for other settings, or by another version"];
    const differences = namedDifferences(plan, table, undefined);
    if (differences.length > 0) return differences;
    const { body, rules } = this.#reference ?? { body: "", rules: "" };
    return body === bodyText(plan) && rules !== rulesDigest(table) ? ["a rule was changed in place"] : [];
  }
}
