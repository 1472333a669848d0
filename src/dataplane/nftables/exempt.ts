// SPDX-License-Identifier: Apache-2.0
// What is never turned, and what has been: each chain that turns, and each that refuses what was not, begins with it.
import { MARK_MASK, ZTUNNEL_MARK, ZTUNNEL_PORT } from "../../core/constants.ts";
import type { CaptureSpec } from "../../core/ports/dataplane.ts";
import { EBPF_RANGES, hex } from "../netfilter/numbers.ts";
import { address, cidrs, interfaceName } from "../netfilter/values.ts";
import type { Rule } from "./ruleset.ts";

/** With a counter in the chains whose counters are verdicts. */
export type Accepted = "accept" | "counter accept";

export const masked = (mark: number) => `meta mark and ${hex(MARK_MASK)} == ${hex(mark)}`;

/**
 * An application with CAP_NET_RAW may wear this mark itself and leaves uncaptured, as with upstream's
 * rules. `socket cgroupv2` can't tell the two apart from here: nft wants a path below its own cgroup
 * namespace, which under the stock chart holds the agent alone, and a mark refused to a new ztunnel
 * until its cgroup is known would send that ztunnel's connections to itself.
 */
export const FROM_ZTUNNEL = masked(ZTUNNEL_MARK);
export const SYN = "tcp flags & (syn|ack) == syn";
export const NOT_A_SYN = "meta l4proto tcp tcp flags & (syn|ack) != syn";
export const ONLY_SYNS: readonly Rule[] = [
  { name: "not-tcp", text: "meta l4proto != tcp accept" },
  { name: "not-syn", text: `${NOT_A_SYN} accept` },
];
export const TURNED: Rule = { name: "redirected", text: "ct status dnat accept" };

export function exemptInbound(spec: CaptureSpec, accepted: Accepted): Rule[] {
  return [
    { name: "loopback", text: 'iif "lo" accept' },
    { name: "ztunnel", text: `${FROM_ZTUNNEL} accept` },
    { name: "hbone", text: `tcp dport ${ZTUNNEL_PORT.inboundHbone} ${accepted}` },
    { name: "probe-v4", text: `ip saddr ${address(spec.probeIpv4, 4)} ${accepted}` },
    { name: "probe-v6", text: `ip6 saddr ${address(spec.probeIpv6, 6)} ${accepted}` },
    ...ofEbpf(),
  ];
}

export function exemptOutbound(spec: CaptureSpec, accepted: Accepted): Rule[] {
  return [
    // 127.0.0.0/8, ::1 and the pod's own addresses all leave by lo.
    { name: "local", text: 'oif "lo" accept' },
    { name: "ztunnel", text: `${FROM_ZTUNNEL} accept` },
    { name: "probe-v4", text: `meta l4proto tcp ip daddr ${address(spec.probeIpv4, 4)} accept` },
    { name: "probe-v6", text: `meta l4proto tcp ip6 daddr ${address(spec.probeIpv6, 6)} accept` },
    ...list("exclude-v4", "ip daddr", cidrs(spec.excludeOutboundCidrs, 4), accepted),
    ...list("exclude-v6", "ip6 daddr", cidrs(spec.excludeOutboundCidrs, 6), accepted),
  ];
}

/** The eBPF engine's, until it has retired or we have. */
export function ofEbpf(): Rule[] {
  return [
    { name: "ebpf-v4", text: `ip daddr { ${EBPF_RANGES[4].join(", ")} } accept` },
    { name: "ebpf-v6", text: `ip6 daddr { ${EBPF_RANGES[6].join(", ")} } accept` },
  ];
}

export function onlyIpv4(spec: CaptureSpec): Rule[] {
  return spec.ipv6 ? [] : [{ name: "ipv6-off", text: "meta nfproto ipv6 accept" }];
}

/** Interfaces behind which guests are, each once. @throws AgentError BAD_INTERFACE_NAME that names the value. */
export function rerouted(spec: CaptureSpec): readonly string[] {
  return [...new Set(spec.rerouteInterfaces.map(interfaceName))];
}

/** One rule for all the values, none without any. */
export function list(name: string, match: string, values: readonly string[], action: string): Rule[] {
  return values.length === 0 ? [] : [{ name, text: `${match} { ${values.join(", ")} } ${action}` }];
}
