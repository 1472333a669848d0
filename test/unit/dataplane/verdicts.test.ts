// SPDX-License-Identifier: Apache-2.0
import { expect, test } from "vitest";
import { COUNTING_CHAINS as IPTABLES } from "../../../src/dataplane/iptables/plan.ts";
import { verdictsOf } from "../../../src/dataplane/netfilter/verdicts.ts";
import { COUNTING_CHAINS as NFTABLES } from "../../../src/dataplane/nftables/plan.ts";

const rule = (chain: string, comment: string, packets: number) => ({ chain, comment, packets: BigInt(packets) });

test.each([NFTABLES, IPTABLES])("rules of $outbound are summed by verdict", (chains) => {
  const { outbound, inbound, refusal, staleOutbound, staleInbound, staleForwarded } = chains;
  const rules = [
    rule(outbound, "outbound", 3),
    rule(outbound, "dns-udp", 2),
    rule(outbound, "dns-tcp-10.0.0.1", 1),
    rule(outbound, "exclude-10.0.0.0/8", 4),
    rule(inbound, "inbound", 5),
    rule(inbound, "hbone", 6),
    rule(inbound, "probe-v4", 7),
    rule(inbound, "probe-v6", 1),
    rule(refusal, "refused", 9),
    rule(staleOutbound, "stale", 10),
    rule(staleOutbound, "redirected", 100),
    rule(staleInbound, "stale", 11),
    rule(staleInbound, "reroute-vnet0", 1),
    rule(staleForwarded, "reroute-vnet0", 1),
    rule(staleInbound, "hbone", 100),
    // Where nothing is decided, or not by us.
    rule(outbound, "probe-v4", 100),
    rule(outbound, "not-syn", 100),
    rule("another", "outbound", 100),
    rule(outbound, "constructor", 100),
    rule(outbound, "", 100),
  ];
  expect(verdictsOf(rules, chains)).toEqual({
    outbound_captured: 3,
    outbound_dns: 3,
    outbound_excluded: 4,
    inbound_captured: 5,
    inbound_hbone: 6,
    inbound_probe: 8,
    outbound_refused_self: 9,
    outbound_refused_stale: 12,
    inbound_refused_stale: 11,
  });
});
