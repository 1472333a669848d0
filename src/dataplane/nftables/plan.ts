// SPDX-License-Identifier: Apache-2.0
// From what must be true of a pod's traffic to the table that makes it so. Pure.
import { LOCAL_MARK, MARK_MASK, VERIFY_MARK, ZTUNNEL_PORT } from "../../core/constants.ts";
import type { CaptureSpec } from "../../core/ports/dataplane.ts";
import type { Legs, PlanMode } from "../netfilter/mode.ts";
import { CONNTRACK_ZONE, hex } from "../netfilter/numbers.ts";
import { addresses } from "../netfilter/values.ts";
import type { CountingChains } from "../netfilter/verdicts.ts";
import {
  exemptInbound,
  exemptOutbound,
  FROM_ZTUNNEL,
  list,
  masked,
  NOT_A_SYN,
  ONLY_SYNS,
  ofEbpf,
  onlyIpv4,
  rerouted,
  SYN,
  TURNED,
} from "./exempt.ts";
import type { Chain, Rule, Ruleset } from "./ruleset.ts";
import { refused, staleGuards, staleInbound } from "./stale.ts";

/** What this node's kernel and privileges allow; found by the self-test. */
export interface Features {
  /** tcp_fwmark_accept and fwmark_reflect can be set in a pod's netns. */
  readonly sysctls: boolean;
  /** The `socket mark` expression exists (nft_socket). */
  readonly socketMark: boolean;
}

/** Ports of listeners with an SO_MARK of their own, learnt by the table. */
export const MARKED_LISTENERS = "marked-listeners";

/** The learnt set is bounded; a port more than this is only not learnt. */
const MARKED_LISTENERS_SIZE = 1024;

/**
 * Ours come before anybody's DNAT (-100): a port published inside the pod must not lead past ztunnel.
 * Conntrack looks up at -200: zones and notrack are decided at -300.
 */
const PRIORITY = { raw: -300, mangle: -150, nat: -110, filter: -5 } as const;

/** ztunnel's leg to the application that wears the client's address. */
const SPOOFED_LEG = `meta l4proto tcp ${FROM_ZTUNNEL} fib saddr type != local`;

/** Where the rules are whose counters are verdicts. */
export const COUNTING_CHAINS: CountingChains = {
  outbound: "nat-output",
  inbound: "nat-prerouting",
  refusal: "direct-call",
  staleOutbound: "syn-output",
  staleInbound: "syn-input",
  staleForwarded: "syn-forward",
};

/**
 * The table of one pod. Two pods with equal answers get equal tables: the pod's own addresses are not
 * in it, because whatever is local to the netns is the pod's.
 * @throws AgentError BAD_INTERFACE_NAME | BAD_ADDRESS that names the value.
 */
export function planCapture(
  spec: CaptureSpec,
  features: Features,
  mode: PlanMode = "captured",
  legs: Legs = "own",
): Ruleset {
  const learns = legs === "own" && features.sysctls && features.socketMark;
  const inboundGuard = mode === "captured" ? staleInbound(spec) : { chains: [], rules: [] };
  const chains: Chain[] = [
    ...legChains(features, legs, learns),
    {
      name: "mark-output",
      hook: { type: "route", hook: "output", priority: PRIORITY.mangle },
      rules: markOutput(),
    },
    {
      name: "nat-prerouting",
      hook: { type: "nat", hook: "prerouting", priority: PRIORITY.nat },
      // Draining keeps the chains: a netns without NAT hooks forgets the translation of open connections.
      rules: mode === "captured" ? inbound(spec) : [],
    },
    {
      name: "nat-output",
      hook: { type: "nat", hook: "output", priority: PRIORITY.nat },
      rules: [verification(), ...(mode === "captured" ? outbound(spec) : [])],
    },
    {
      name: "refuse-input",
      hook: { type: "filter", hook: "input", priority: PRIORITY.filter },
      rules: mode === "retiring" ? [] : [refuseDirectCalls(), ...inboundGuard.rules],
    },
    ...inboundGuard.chains,
    ...(mode === "captured" ? staleGuards(spec, PRIORITY.filter) : []),
    {
      // A call to 15001 or 15006 themselves, by anybody including ztunnel, would be answered as if it
      // had been captured: at 15001 that is an endless loop to itself.
      name: "direct-call",
      hook: undefined,
      rules: [TURNED, ...ofEbpf(), refused("refused")],
    },
  ];
  const sets = learns
    ? [{ name: MARKED_LISTENERS, text: `type inet_service; size ${MARKED_LISTENERS_SIZE}; flags dynamic` }]
    : [];
  return { sets, chains };
}

function legChains(features: Features, legs: Legs, learns: boolean): Chain[] {
  if (legs === "upstream") return upstreamLeg(features);
  return features.sysctls ? untrackedLeg(learns) : trackedLeg();
}

/**
 * The spoofed leg and the application's replies to it stay out of conntrack. The client's own leg has
 * the same 4-tuple whenever ztunnel happens to pick the client's port; tracked, one of the two dies.
 * The application's socket inherits LOCAL_MARK from the SYN (tcp_fwmark_accept), its resets mirror it
 * (fwmark_reflect), and the policy rule brings both back to lo.
 *
 * A listener with a mark of its own does not inherit. Its port is learnt from the first SYN, which is
 * dropped (it comes again after 1 s); from then on its spoofed legs are tracked, see `trackedLeg`.
 */
function untrackedLeg(learns: boolean): Chain[] {
  const learn: Rule[] = learns
    ? [
        {
          name: "learn-marked-listener",
          text:
            `${SYN} tcp dport != @${MARKED_LISTENERS} socket mark != 0 socket mark and ${hex(MARK_MASK)} != ${hex(LOCAL_MARK)}` +
            ` add @${MARKED_LISTENERS} { tcp dport } counter drop`,
        },
      ]
    : [];
  const markedListener: Rule[] = learns
    ? [
        {
          name: "spoofed-to-marked-listener",
          text: `oif "lo" tcp dport @${MARKED_LISTENERS} ${SPOOFED_LEG} ct original zone set ${CONNTRACK_ZONE} accept`,
        },
      ]
    : [];
  return [
    {
      name: "raw-prerouting",
      hook: { type: "filter", hook: "prerouting", priority: PRIORITY.raw },
      rules: [
        // Untracked, as raw-output left it: ztunnel's answers to redirected connections come by here with a
        // source that is not local either, and their mark, given back by a TIME_WAIT socket, would lose its ACK.
        { name: "spoofed", text: `iif "lo" ct state untracked ${SPOOFED_LEG} jump spoofed-arrives` },
        {
          name: "reply",
          text: `iif "lo" meta l4proto tcp ${masked(LOCAL_MARK)} meta mark != ${hex(VERIFY_MARK.netfilter)} notrack`,
        },
      ],
    },
    {
      name: "spoofed-arrives",
      hook: undefined,
      rules: [...learn, { name: "mark", text: `meta mark set ${hex(LOCAL_MARK)} notrack` }],
    },
    {
      name: "raw-output",
      hook: { type: "filter", hook: "output", priority: PRIORITY.raw },
      rules: [
        {
          name: "reply",
          text: `meta l4proto tcp ${masked(LOCAL_MARK)} meta mark != ${hex(VERIFY_MARK.netfilter)} notrack accept`,
        },
        ...markedListener,
        { name: "spoofed", text: `oif "lo" ${SPOOFED_LEG} notrack accept` },
        dnsUpstream(),
      ],
    },
  ];
}

/**
 * Upstream's form, for nodes where the pod's sysctls can't be written: conntrack remembers LOCAL_MARK
 * and puts it on the replies. The original direction lives in a zone of its own, which no reply needs
 * to know: the client's leg with the same 4-tuple lies in zone 0, so this form is free of the collision
 * too. It costs one conntrack entry more per connection.
 */
function trackedLeg(): Chain[] {
  return [
    {
      name: "raw-output",
      hook: { type: "filter", hook: "output", priority: PRIORITY.raw },
      rules: [
        { name: "spoofed", text: `oif "lo" ${SPOOFED_LEG} ct original zone set ${CONNTRACK_ZONE} accept` },
        dnsUpstream(),
      ],
    },
  ];
}

/**
 * While legs are open that upstream's rules have seen begin: conntrack knows them, in zone 0, and nothing else
 * brings their replies back, for the application's sockets have no mark. So new ones are tracked there too; a
 * packet of theirs is told from ztunnel's answers, whose source is not local either, by its direction. They
 * get the mark, so that they go on when this form goes.
 */
function upstreamLeg(features: Features): Chain[] {
  const mark: Rule = {
    name: "spoofed",
    text: `iif "lo" ct direction original ${SPOOFED_LEG} meta mark set ${hex(LOCAL_MARK)}`,
  };
  const hook = (name: "prerouting" | "output", rules: readonly Rule[]): Chain => ({
    name: `raw-${name}`,
    hook: { type: "filter", hook: name, priority: PRIORITY.raw },
    rules,
  });
  return [...(features.sysctls ? [hook("prerouting", [mark])] : []), hook("output", [dnsUpstream()])];
}

/**
 * ztunnel's own DNS question may use the port of an application's question that conntrack still
 * remembers; in the same zone it would be sent back to ztunnel. Replies are found in zone 0.
 */
function dnsUpstream(): Rule {
  return {
    name: "dns-upstream",
    text: `oif != "lo" udp dport 53 ${FROM_ZTUNNEL} ct original zone set ${CONNTRACK_ZONE}`,
  };
}

function markOutput(): Rule[] {
  return [
    { name: "untracked", text: "ct state untracked accept" },
    {
      name: "remember",
      text:
        `oif "lo" ct state new ${SPOOFED_LEG}` +
        ` ct mark set ct mark and ${hex(~MARK_MASK >>> 0)} or ${hex(LOCAL_MARK)} accept`,
    },
    {
      name: "restore",
      text: `meta l4proto tcp ct direction reply ct mark and ${hex(MARK_MASK)} == ${hex(LOCAL_MARK)} meta mark set ${hex(LOCAL_MARK)}`,
    },
  ];
}

function refuseDirectCalls(): Rule {
  const ports = `${ZTUNNEL_PORT.outbound}, ${ZTUNNEL_PORT.inboundPlaintext}`;
  return { name: "ztunnel-ports", text: `tcp dport { ${ports} } ${SYN} jump direct-call` };
}

/** Our own connection from inside the netns to itself (verify.ts): proves hook, conntrack, rule and route. */
function verification(): Rule {
  return { name: "verify", text: `meta l4proto tcp meta mark ${hex(VERIFY_MARK.netfilter)} redirect` };
}

/** Only SYNs: conntrack takes a connection older than the table for new in mid-stream. */
function inbound(spec: CaptureSpec): Rule[] {
  const rules: Rule[] = [...ONLY_SYNS, ...onlyIpv4(spec)];
  for (const name of rerouted(spec)) {
    rules.push({
      name: `reroute-${name}`,
      text: `iifname "${name}" meta l4proto tcp counter redirect to :${ZTUNNEL_PORT.outbound}`,
    });
  }
  if (spec.bypassInbound) return rules;
  rules.push(
    ...exemptInbound(spec, "counter accept"),
    // Any local address, not only the pod IP: a second interface or an alias leads to the same
    // sockets. What is only forwarded through the pod is left alone.
    {
      name: "inbound",
      text: `fib daddr type local meta l4proto tcp counter redirect to :${ZTUNNEL_PORT.inboundPlaintext}`,
    },
  );
  return rules;
}

function outbound(spec: CaptureSpec): Rule[] {
  const rules: Rule[] = [...onlyIpv4(spec), ...exemptOutbound(spec, "counter accept")];
  rules.push(...dns(spec, "udp", "udp dport 53"));
  rules.push({ name: "not-syn", text: `${NOT_A_SYN} accept` });
  rules.push(...dns(spec, "tcp", "tcp dport 53"));
  rules.push({ name: "outbound", text: `meta l4proto tcp counter redirect to :${ZTUNNEL_PORT.outbound}` });
  return rules;
}

function dns(spec: CaptureSpec, protocol: "udp" | "tcp", match: string): Rule[] {
  if (!spec.dnsCapture) return [];
  const action = `${match} counter redirect to :${ZTUNNEL_PORT.dns}`;
  if (spec.dnsServers === undefined) return [{ name: `dns-${protocol}`, text: action }];
  return [
    ...list(`dns-${protocol}-v4`, "ip daddr", addresses(spec.dnsServers, 4), action),
    ...list(`dns-${protocol}-v6`, "ip6 daddr", addresses(spec.dnsServers, 6), action),
  ];
}
