// SPDX-License-Identifier: Apache-2.0
// What is never turned, and what has been, in the words of iptables: see nftables/exempt.ts.
import { MARK_MASK, ZTUNNEL_MARK, ZTUNNEL_PORT } from "../../core/constants.ts";
import { AgentError } from "../../core/errors.ts";
import type { CaptureSpec } from "../../core/ports/dataplane.ts";
import type { AddressFamily } from "../../native/binding.ts";
import { EBPF_RANGES, hex } from "../netfilter/numbers.ts";
import { address, cidrs, interfaceName } from "../netfilter/values.ts";
import type { Rule } from "./ruleset.ts";

export const marked = (mark: number) => `-m mark --mark ${hex(mark)}/${hex(MARK_MASK)}`;
export const FROM_ZTUNNEL = marked(ZTUNNEL_MARK);
export const SYN = "-p tcp -m tcp --tcp-flags SYN,ACK SYN";
export const NOT_A_SYN = "-p tcp -m tcp ! --tcp-flags SYN,ACK SYN";
export const ONLY_SYNS: readonly Rule[] = [
  { name: "not-tcp", text: "! -p tcp -j RETURN" },
  { name: "not-syn", text: `${NOT_A_SYN} -j RETURN` },
];
export const TURNED: Rule = { name: "redirected", text: "-m conntrack --ctstate DNAT -j RETURN" };

export function exemptInbound(spec: CaptureSpec, family: AddressFamily): Rule[] {
  return [
    { name: "loopback", text: "-i lo -j RETURN" },
    { name: "ztunnel", text: `${FROM_ZTUNNEL} -j RETURN` },
    { name: "hbone", text: `-p tcp -m tcp --dport ${ZTUNNEL_PORT.inboundHbone} -j RETURN` },
    { name: "probe", text: `-s ${probe(spec, family)} -j RETURN` },
    ...ofEbpf(family),
  ];
}

export function exemptOutbound(spec: CaptureSpec, family: AddressFamily): Rule[] {
  return [
    // 127.0.0.0/8, ::1 and the pod's own addresses all leave by lo.
    { name: "local", text: "-o lo -j RETURN" },
    { name: "ztunnel", text: `${FROM_ZTUNNEL} -j RETURN` },
    { name: "probe", text: `-d ${probe(spec, family)} -p tcp -j RETURN` },
    ...cidrs(spec.excludeOutboundCidrs, family).map((cidr) => ({
      name: `exclude-${cidr}`,
      text: `-d ${cidr} -j RETURN`,
    })),
  ];
}

/** The eBPF engine's, until it has retired or we have. */
export function ofEbpf(family: AddressFamily): Rule[] {
  return EBPF_RANGES[family].map((range, place) => ({ name: `ebpf-${place}`, text: `-d ${range} -j RETURN` }));
}

/** Interfaces behind which guests are, each once. @throws AgentError BAD_INTERFACE_NAME that names the value. */
export function rerouted(spec: CaptureSpec): readonly string[] {
  return [...new Set(spec.rerouteInterfaces.map(ruleInterface))];
}

export function host(ip: string, family: AddressFamily): string {
  return `${ip}/${family === 4 ? 32 : 128}`;
}

/** Both probe addresses are checked in either family, so that a wrong one never passes unseen. */
function probe(spec: CaptureSpec, family: AddressFamily): string {
  const own = { 4: address(spec.probeIpv4, 4), 6: address(spec.probeIpv6, 6) };
  return host(own[family], family);
}

/** iptables-restore reads a word that begins with a dash as an option of its own. */
function ruleInterface(name: string): string {
  if (!name.startsWith("-")) return interfaceName(name);
  throw new AgentError("BAD_INTERFACE_NAME", `not a name that iptables takes: ${JSON.stringify(name)}`);
}
