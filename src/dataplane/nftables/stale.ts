// SPDX-License-Identifier: Apache-2.0
// What should have been turned and was not. A NAT rule sees the first packet of what conntrack does not know yet: a
// SYN with the tuple of a connection that was not turned, ztunnel's own or one from before the capture, is taken for a
// packet of that one for as long as conntrack remembers it, and would leave in the clear.
import type { CaptureSpec } from "../../core/ports/dataplane.ts";
import { exemptInbound, exemptOutbound, ONLY_SYNS, onlyIpv4, rerouted, TURNED } from "./exempt.ts";
import type { Chain, Rule } from "./ruleset.ts";

/** Of what leaves, and of what guests behind the pod send through it. */
export function staleGuards(spec: CaptureSpec, priority: number): Chain[] {
  const guard = (name: "output" | "forward", rules: readonly Rule[]): Chain => ({
    name: `refuse-${name}`,
    hook: { type: "filter", hook: name, priority },
    rules: [...ONLY_SYNS, TURNED, ...onlyIpv4(spec), ...rules],
  });
  const chains = [guard("output", [...exemptOutbound(spec, "accept"), refused("stale")])];
  const guests = ofGuests(spec);
  return guests.length === 0 ? chains : [...chains, guard("forward", guests)];
}

/** For the end of a chain of the input hook: of what comes in, and of what guests send to the pod itself. */
export function staleInbound(spec: CaptureSpec): Rule[] {
  const all = spec.bypassInbound ? [] : [...exemptInbound(spec, "accept"), refused("stale")];
  const rules = [...ofGuests(spec), ...all];
  return rules.length === 0 ? [] : [...ONLY_SYNS, TURNED, ...onlyIpv4(spec), ...rules];
}

export function refused(name: string, match = ""): Rule {
  return { name, text: `${match}meta l4proto tcp counter reject with tcp reset` };
}

function ofGuests(spec: CaptureSpec): Rule[] {
  return rerouted(spec).map((name) => refused(`reroute-${name}`, `iifname "${name}" `));
}
