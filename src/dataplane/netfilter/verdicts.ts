// SPDX-License-Identifier: Apache-2.0
// Counters of rules in the words in which all engines count. A NAT rule sees the first packet of each connection.
import type { Verdict, VerdictCounts } from "../../core/verdicts.ts";

export interface CountedRule {
  readonly chain: string;
  /** Its name in the plan. */
  readonly comment: string;
  readonly packets: bigint;
}

/** Rule names of both plans, without what tells apart rules of one kind (`dns-udp-v4`, `exclude-10.0.0.0/8`). */
const OUTBOUND: Readonly<Record<string, Verdict>> = {
  outbound: "outbound_captured",
  dns: "outbound_dns",
  exclude: "outbound_excluded",
};
const INBOUND: Readonly<Record<string, Verdict>> = {
  inbound: "inbound_captured",
  hbone: "inbound_hbone",
  probe: "inbound_probe",
  reroute: "outbound_captured",
};
const REFUSAL: Readonly<Record<string, Verdict>> = { refused: "outbound_refused_self" };
/** What guests behind the pod send is outbound wherever it is met. */
const STALE_OUTBOUND: Readonly<Record<string, Verdict>> = {
  stale: "outbound_refused_stale",
  reroute: "outbound_refused_stale",
};
const STALE_INBOUND: Readonly<Record<string, Verdict>> = {
  stale: "inbound_refused_stale",
  reroute: "outbound_refused_stale",
};

export interface CountingChains {
  readonly outbound: string;
  readonly inbound: string;
  readonly refusal: string;
  readonly staleOutbound: string;
  readonly staleInbound: string;
  readonly staleForwarded: string;
}

/**
 * Sums by verdict. Rules that decide nothing, and whatever somebody else has put there under a name of its own, are
 * left out: names of rules can't be trusted to be few.
 */
export function verdictsOf(rules: Iterable<CountedRule>, chains: CountingChains): VerdictCounts {
  const words = new Map([
    [chains.outbound, OUTBOUND],
    [chains.inbound, INBOUND],
    [chains.refusal, REFUSAL],
    [chains.staleOutbound, STALE_OUTBOUND],
    [chains.staleInbound, STALE_INBOUND],
    [chains.staleForwarded, STALE_OUTBOUND],
  ]);
  const counts: Partial<Record<Verdict, number>> = {};
  for (const { chain, comment, packets } of rules) {
    const of = words.get(chain);
    const [kind = ""] = comment.split("-", 1);
    if (of === undefined || !Object.hasOwn(of, kind)) continue;
    const verdict = of[kind];
    if (verdict !== undefined && packets > 0n) counts[verdict] = (counts[verdict] ?? 0) + Number(packets);
  }
  return counts;
}
