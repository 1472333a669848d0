// SPDX-License-Identifier: Apache-2.0
// What should have been turned and was not, in the words of iptables: nftables/stale.ts says why. The tables are not
// written at once, so these rules come when table nat is there: before, they would refuse whatever is new.
import type { CaptureSpec } from "../../core/ports/dataplane.ts";
import type { AddressFamily } from "../../native/binding.ts";
import { exemptInbound, exemptOutbound, rerouted, SYN, TURNED } from "./exempt.ts";
import type { Rule } from "./ruleset.ts";

/** Where a rule of `ofSyns` leads, as the next two. */
export function staleOutbound(spec: CaptureSpec, family: AddressFamily): Rule[] {
  return [TURNED, ...exemptOutbound(spec, family), refused("stale")];
}

/** None where inbound is bypassed and no guest is behind the pod. */
export function staleInbound(spec: CaptureSpec, family: AddressFamily): Rule[] {
  const all = spec.bypassInbound ? [] : [...exemptInbound(spec, family), refused("stale")];
  return turnedBefore([...ofGuests(spec), ...all]);
}

/** Of what guests behind the pod send through it. */
export function staleOfGuests(spec: CaptureSpec): Rule[] {
  return turnedBefore(ofGuests(spec));
}

/** Of each packet that is not a SYN one rule is asked. */
export function ofSyns(chain: string): Rule {
  return { name: "syn", text: `${SYN} -j ${chain}`, late: true };
}

export function refused(name: string, match = ""): Rule {
  return { name, text: `${match}-p tcp -j REJECT --reject-with tcp-reset` };
}

function ofGuests(spec: CaptureSpec): Rule[] {
  return rerouted(spec).map((name) => refused(`reroute-${name}`, `-i ${name} `));
}

function turnedBefore(rules: readonly Rule[]): Rule[] {
  return rules.length === 0 ? [] : [TURNED, ...rules];
}
