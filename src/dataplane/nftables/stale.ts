// SPDX-License-Identifier: Apache-2.0
// What should have been turned and was not. A NAT rule sees the first packet of what conntrack does not know yet: a
// SYN with the tuple of a connection that was not turned, ztunnel's own or one from before the capture, is taken for a
// packet of that one for as long as conntrack remembers it, and would leave in the clear.
import type { CaptureSpec } from "../../core/ports/dataplane.ts";
import { exemptInbound, exemptOutbound, onlyIpv4, rerouted, SYN, TURNED } from "./exempt.ts";
import type { Chain, Rule } from "./ruleset.ts";

/** Of each packet that is not a SYN one rule is asked, in each chain that refuses. */
const onlySyns = (chain: string): Rule => ({ name: "syn", text: `meta l4proto tcp ${SYN} jump ${chain}` });

/** Of what leaves, and of what guests behind the pod send through it. */
export function staleGuards(spec: CaptureSpec, priority: number): Chain[] {
  const guard = (name: "output" | "forward", rules: readonly Rule[]): Chain[] => {
    if (rules.length === 0) return [];
    const hook = { type: "filter", hook: name, priority } as const;
    return [jumpedTo(spec, `syn-${name}`, rules), { name: `refuse-${name}`, hook, rules: [onlySyns(`syn-${name}`)] }];
  };
  const outbound = [...exemptOutbound(spec, "accept"), refused("stale")];
  return [...guard("output", outbound), ...guard("forward", ofGuests(spec))];
}

/** For a chain of the input hook, of what comes in and what guests send to the pod itself: where it leads, and the rule. */
export function staleInbound(spec: CaptureSpec): {
  readonly chains: readonly Chain[];
  readonly rules: readonly Rule[];
} {
  const all = spec.bypassInbound ? [] : [...exemptInbound(spec, "accept"), refused("stale")];
  const rules = [...ofGuests(spec), ...all];
  if (rules.length === 0) return { chains: [], rules: [] };
  return { chains: [jumpedTo(spec, "syn-input", rules)], rules: [onlySyns("syn-input")] };
}

function jumpedTo(spec: CaptureSpec, name: string, rules: readonly Rule[]): Chain {
  return { name, hook: undefined, rules: [TURNED, ...onlyIpv4(spec), ...rules] };
}

export function refused(name: string, match = ""): Rule {
  return { name, text: `${match}meta l4proto tcp counter reject with tcp reset` };
}

function ofGuests(spec: CaptureSpec): Rule[] {
  return rerouted(spec).map((name) => refused(`reroute-${name}`, `iifname "${name}" `));
}
