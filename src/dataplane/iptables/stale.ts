// SPDX-License-Identifier: Apache-2.0
// What should have been turned and was not, in the words of iptables: nftables/stale.ts says why. The tables are not
// written at once, so these rules come when table nat is there: before, they would refuse whatever is new.
import type { CaptureSpec } from "../../core/ports/dataplane.ts";
import type { AddressFamily } from "../../native/binding.ts";
import { exemptInbound, exemptOutbound, ONLY_SYNS, rerouted, TURNED } from "./exempt.ts";
import type { Rule } from "./ruleset.ts";

export function staleOutbound(spec: CaptureSpec, family: AddressFamily): Rule[] {
  return late([...exemptOutbound(spec, family), refused("stale")]);
}

/** For the end of a chain of INPUT. */
export function staleInbound(spec: CaptureSpec, family: AddressFamily): Rule[] {
  return late([...ofGuests(spec), ...(spec.bypassInbound ? [] : [...exemptInbound(spec, family), refused("stale")])]);
}

/** Of what guests behind the pod send through it. */
export function staleOfGuests(spec: CaptureSpec): Rule[] {
  return late(ofGuests(spec));
}

export function refused(name: string, match = ""): Rule {
  return { name, text: `${match}-p tcp -j REJECT --reject-with tcp-reset` };
}

function ofGuests(spec: CaptureSpec): Rule[] {
  return rerouted(spec).map((name) => refused(`reroute-${name}`, `-i ${name} `));
}

function late(rules: readonly Rule[]): Rule[] {
  return rules.length === 0 ? [] : [...ONLY_SYNS, TURNED, ...rules].map((rule) => ({ ...rule, late: true }));
}
