// SPDX-License-Identifier: Apache-2.0
// From what must be true of a pod's traffic to the chains that make it so. Pure. The rules are those of
// the nftables engine (nftables/plan.ts says why each is there), in the words of iptables.
import { LOCAL_MARK, MARK_MASK, VERIFY_MARK, ZTUNNEL_PORT } from "../../core/constants.ts";
import type { CaptureSpec } from "../../core/ports/dataplane.ts";
import type { AddressFamily } from "../../native/binding.ts";
import type { Legs, PlanMode } from "../netfilter/mode.ts";
import { CONNTRACK_ZONE, hex } from "../netfilter/numbers.ts";
import { addresses } from "../netfilter/values.ts";
import type { CountingChains } from "../netfilter/verdicts.ts";
import {
  exemptInbound,
  exemptOutbound,
  FROM_ZTUNNEL,
  host,
  marked,
  NOT_A_SYN,
  ONLY_SYNS,
  ofEbpf,
  rerouted,
  SYN,
  TURNED,
} from "./exempt.ts";
import { type BuiltIn, CHAIN_PREFIX, type Chain, type Rule, type Ruleset, type Table } from "./ruleset.ts";
import { ofSyns, refused, staleInbound, staleOfGuests, staleOutbound } from "./stale.ts";

/** What this node's kernel and privileges allow; found by the self-test. */
export interface Features {
  /** tcp_fwmark_accept and fwmark_reflect can be set in a pod's netns. */
  readonly sysctls: boolean;
  /** ip6tables has all that is needed. */
  readonly ipv6: boolean;
}

const CHAIN = {
  prerouting: `${CHAIN_PREFIX}PRE`,
  output: `${CHAIN_PREFIX}OUT`,
  input: `${CHAIN_PREFIX}IN`,
  spoofed: `${CHAIN_PREFIX}SPOOFED`,
  direct: `${CHAIN_PREFIX}DIRECT`,
  stale: `${CHAIN_PREFIX}STALE`,
  forward: `${CHAIN_PREFIX}FORWARD`,
  synInput: `${CHAIN_PREFIX}SYNIN`,
  synOutput: `${CHAIN_PREFIX}SYNOUT`,
  synForward: `${CHAIN_PREFIX}SYNFORWARD`,
} as const;

/** Where the rules are whose counters are verdicts. */
export const COUNTING_CHAINS: CountingChains = {
  outbound: CHAIN.output,
  inbound: CHAIN.prerouting,
  refusal: CHAIN.direct,
  staleOutbound: CHAIN.synOutput,
  staleInbound: CHAIN.synInput,
  staleForwarded: CHAIN.synForward,
};

const OURS_BUT_VERIFY = `-p tcp ${marked(LOCAL_MARK)} -m mark ! --mark ${hex(VERIFY_MARK.netfilter)}`;
/** ztunnel's leg to the application that wears the client's address. */
const SPOOFED_LEG = `-p tcp ${FROM_ZTUNNEL} -m addrtype ! --src-type LOCAL`;
const ZONE = `-j CT --zone-orig ${CONNTRACK_ZONE}`;
const redirect = (port: number) => `-j REDIRECT --to-ports ${port}`;

/**
 * The chains of one pod, for the families that its netns has. Every decision is RETURN and none is
 * ACCEPT: rules of the pod's own behind our jumps stay in force.
 * @throws AgentError BAD_INTERFACE_NAME | BAD_ADDRESS that names the value.
 */
export function planCapture(
  spec: CaptureSpec,
  features: Features,
  mode: PlanMode,
  families: readonly AddressFamily[],
  legs: Legs = "own",
): Ruleset {
  const tables = [...familyTables(spec, features, mode, 4, legs)];
  if (!families.includes(6)) return tables;
  if (spec.ipv6) return [...tables, ...familyTables(spec, features, mode, 6, legs)];
  // IPv6 is not captured, but a call to ztunnel's own ports is refused in it all the same.
  return features.ipv6 ? [...tables, { family: 6, name: "filter", chains: refusal(mode, 6, undefined) }] : tables;
}

function familyTables(
  spec: CaptureSpec,
  features: Features,
  mode: PlanMode,
  family: AddressFamily,
  legs: Legs,
): Table[] {
  const steered = mode === "captured";
  return [
    { family, name: "raw", chains: legChains(features, legs) },
    { family, name: "mangle", chains: [{ name: CHAIN.output, from: "OUTPUT", rules: markOutput() }] },
    { family, name: "filter", chains: refusal(mode, family, steered ? spec : undefined) },
    {
      family,
      name: "nat",
      chains: [
        { name: CHAIN.prerouting, from: "PREROUTING", rules: steered ? inbound(spec, family) : [] },
        // Draining keeps a rule: a netns whose last NAT rule goes forgets the translation of open connections.
        { name: CHAIN.output, from: "OUTPUT", rules: [verification(), ...(steered ? outbound(spec, family) : [])] },
      ],
    },
  ];
}

function legChains(features: Features, legs: Legs): Chain[] {
  if (legs === "upstream") return upstreamLeg(features);
  return features.sysctls ? untrackedLeg() : trackedLeg();
}

/**
 * The spoofed leg and the application's replies to it stay out of conntrack, so that the client's own leg
 * may have the same 4-tuple. A listener with a mark of its own is out of reach: iptables has nothing that
 * could learn its port from a packet, as the nftables engine does.
 */
function untrackedLeg(): Chain[] {
  return [
    {
      name: CHAIN.prerouting,
      from: "PREROUTING",
      rules: [
        { name: "spoofed", text: `-i lo -m conntrack --ctstate UNTRACKED ${SPOOFED_LEG} -j ${CHAIN.spoofed}` },
        { name: "reply", text: `-i lo ${OURS_BUT_VERIFY} -j CT --notrack` },
      ],
    },
    {
      name: CHAIN.spoofed,
      from: undefined,
      rules: [
        { name: "mark", text: `-j MARK --set-xmark ${hex(LOCAL_MARK)}/0xffffffff` },
        { name: "notrack", text: "-j CT --notrack" },
      ],
    },
    {
      name: CHAIN.output,
      from: "OUTPUT",
      rules: [
        { name: "reply", text: `${OURS_BUT_VERIFY} -j CT --notrack` },
        { name: "spoofed", text: `-o lo ${SPOOFED_LEG} -j CT --notrack` },
        dnsUpstream(),
      ],
    },
  ];
}

/** Upstream's form, with the leg's original direction in a zone of its own: see nftables/plan.ts. */
function trackedLeg(): Chain[] {
  return [
    {
      name: CHAIN.output,
      from: "OUTPUT",
      rules: [{ name: "spoofed", text: `-o lo ${SPOOFED_LEG} ${ZONE}` }, dnsUpstream()],
    },
  ];
}

/** While legs are open that upstream's rules have seen begin: see nftables/plan.ts. */
function upstreamLeg(features: Features): Chain[] {
  const mark: Rule = {
    name: "spoofed",
    text: `-i lo -m conntrack --ctdir ORIGINAL ${SPOOFED_LEG} -j MARK --set-xmark ${hex(LOCAL_MARK)}/0xffffffff`,
  };
  const chain = (name: string, from: "PREROUTING" | "OUTPUT", rules: readonly Rule[]): Chain => ({ name, from, rules });
  return [
    ...(features.sysctls ? [chain(CHAIN.prerouting, "PREROUTING", [mark])] : []),
    chain(CHAIN.output, "OUTPUT", [dnsUpstream()]),
  ];
}

function dnsUpstream(): Rule {
  return { name: "dns-upstream", text: `! -o lo -p udp -m udp --dport 53 ${FROM_ZTUNNEL} ${ZONE}` };
}

function markOutput(): Rule[] {
  const local = `${hex(LOCAL_MARK)}/${hex(MARK_MASK)}`;
  return [
    { name: "untracked", text: "-m conntrack --ctstate UNTRACKED -j RETURN" },
    {
      name: "remember",
      text: `-o lo -m conntrack --ctstate NEW ${SPOOFED_LEG} -j CONNMARK --set-xmark ${local}`,
    },
    {
      name: "restore",
      text: `-p tcp -m conntrack --ctdir REPLY -m connmark --mark ${local} -j MARK --set-xmark ${hex(LOCAL_MARK)}/0xffffffff`,
    },
  ];
}

/**
 * A call to 15001 or 15006 themselves, which were not what its packets asked for before a redirection; and what
 * should have been turned and was not (see nftables/stale.ts), where the pod is captured as `spec` says.
 */
function refusal(mode: PlanMode, family: AddressFamily, spec: CaptureSpec | undefined): Chain[] {
  const ports = [ZTUNNEL_PORT.outbound, ZTUNNEL_PORT.inboundPlaintext];
  const direct = ports.map((port) => ({ name: `port-${port}`, text: `${SYN} --dport ${port} -j ${CHAIN.direct}` }));
  const stale = spec === undefined ? [] : staleInbound(spec, family);
  const guard = stale.length === 0 ? [] : [ofSyns(CHAIN.synInput)];
  return [
    { name: CHAIN.input, from: "INPUT", rules: mode === "retiring" ? [] : [...direct, ...guard] },
    { name: CHAIN.direct, from: undefined, rules: [TURNED, ...ofEbpf(family), refused("refused")] },
    ...chain(CHAIN.synInput, undefined, stale),
    ...(spec === undefined ? [] : staleChains(spec, family)),
  ];
}

function staleChains(spec: CaptureSpec, family: AddressFamily): Chain[] {
  const guests = staleOfGuests(spec);
  return [
    ...chain(CHAIN.synOutput, undefined, staleOutbound(spec, family)),
    ...chain(CHAIN.stale, "OUTPUT", [ofSyns(CHAIN.synOutput)]),
    ...chain(CHAIN.synForward, undefined, guests),
    ...chain(CHAIN.forward, "FORWARD", guests.length === 0 ? [] : [ofSyns(CHAIN.synForward)]),
  ];
}

/** None without rules. */
function chain(name: string, from: BuiltIn | undefined, rules: readonly Rule[]): Chain[] {
  return rules.length === 0 ? [] : [{ name, from, rules }];
}

/** Our own connection from inside the netns to itself (netfilter/verify.ts). */
function verification(): Rule {
  return { name: "verify", text: `-p tcp -m mark --mark ${hex(VERIFY_MARK.netfilter)} -j REDIRECT` };
}

function inbound(spec: CaptureSpec, family: AddressFamily): Rule[] {
  const rules: Rule[] = [...ONLY_SYNS];
  for (const name of rerouted(spec)) {
    rules.push({ name: `reroute-${name}`, text: `-i ${name} -p tcp ${redirect(ZTUNNEL_PORT.outbound)}` });
  }
  if (spec.bypassInbound) return rules;
  rules.push(
    ...exemptInbound(spec, family),
    // Any local address, not only the pod IP: a second interface or an alias leads to the same sockets.
    { name: "inbound", text: `-p tcp -m addrtype --dst-type LOCAL ${redirect(ZTUNNEL_PORT.inboundPlaintext)}` },
  );
  return rules;
}

function outbound(spec: CaptureSpec, family: AddressFamily): Rule[] {
  return [
    ...exemptOutbound(spec, family),
    ...dns(spec, family, "udp"),
    { name: "not-syn", text: `${NOT_A_SYN} -j RETURN` },
    ...dns(spec, family, "tcp"),
    { name: "outbound", text: `-p tcp ${redirect(ZTUNNEL_PORT.outbound)}` },
  ];
}

function dns(spec: CaptureSpec, family: AddressFamily, protocol: "udp" | "tcp"): Rule[] {
  if (!spec.dnsCapture) return [];
  const text = `-p ${protocol} -m ${protocol} --dport 53 ${redirect(ZTUNNEL_PORT.dns)}`;
  if (spec.dnsServers === undefined) return [{ name: `dns-${protocol}`, text }];
  return addresses(spec.dnsServers, family).map((ip) => ({
    name: `dns-${protocol}-${ip}`,
    text: `-d ${host(ip, family)} ${text}`,
  }));
}
