// SPDX-License-Identifier: Apache-2.0
// Upstream's own rules for a pod, as its agent would write them: whoever follows us must find no difference,
// and be able to take them away. Pure. Its agent compares chain by chain and asks for each rule, so nothing
// may be added to its chains, no comment either.
import { LOCAL_MARK, MARK_MASK, ZTUNNEL_MARK, ZTUNNEL_PORT } from "../../core/constants.ts";
import type { CaptureSpec } from "../../core/ports/dataplane.ts";
import type { AddressFamily } from "../../native/binding.ts";
import type { TableName } from "../iptables/ruleset.ts";
import { CONNTRACK_ZONE, hex } from "../netfilter/numbers.ts";
import { address, interfaceName } from "../netfilter/values.ts";
import { MANGLE_TABLE, NAT_TABLE, OUTPUT_CHAIN, PREROUTING_CHAIN, RAW_TABLE } from "./names.ts";

export interface UpstreamTable {
  readonly name: TableName;
  /** Rules by chain, without the jumps that lead there. */
  readonly prerouting: readonly string[];
  readonly output: readonly string[];
}

const LOOPBACK = { 4: "127.0.0.1/32", 6: "::1/128" } as const;
const marked = (mark: number) => `-m mark --mark ${hex(mark)}/${hex(MARK_MASK)}`;
const NOT_ZTUNNEL = `-m mark ! --mark ${hex(ZTUNNEL_MARK)}/${hex(MARK_MASK)}`;
const REMEMBERED = `${hex(LOCAL_MARK)}/${hex(MARK_MASK)}`;
const redirect = (port: number) => `-j REDIRECT --to-ports ${port}`;

/**
 * What iptables-restore is told, in the order in which nothing is steered before what steering relies on.
 * @throws AgentError BAD_INTERFACE_NAME | BAD_ADDRESS that names the value.
 */
export function upstreamChains(spec: CaptureSpec, family: AddressFamily): UpstreamTable[] {
  const loopback = LOOPBACK[family];
  const probe = address(family === 4 ? spec.probeIpv4 : spec.probeIpv6, family);
  const dns = (rules: readonly string[]) => (spec.dnsCapture ? rules : []);
  const inbound = (rules: readonly string[]) => (spec.bypassInbound ? [] : rules);
  const raw: UpstreamTable = {
    name: "raw",
    prerouting: [`-p udp ${NOT_ZTUNNEL} -m udp --sport 53 -j CT --zone ${CONNTRACK_ZONE}`],
    output: [`-p udp ${marked(ZTUNNEL_MARK)} -m udp --dport 53 -j CT --zone ${CONNTRACK_ZONE}`],
  };
  return [
    ...(spec.dnsCapture ? [raw] : []),
    {
      name: "mangle",
      prerouting: [`${marked(ZTUNNEL_MARK)} -j CONNMARK --set-xmark ${REMEMBERED}`],
      output: [`-m connmark --mark ${REMEMBERED} -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff`],
    },
    {
      name: "nat",
      prerouting: [
        ...spec.rerouteInterfaces
          .map(interfaceName)
          .flatMap((name) => [`-i ${name} -p tcp ${redirect(ZTUNNEL_PORT.outbound)}`, `-i ${name} -p tcp -j RETURN`]),
        ...inbound([
          `-s ${probe} -p tcp -m tcp -j ACCEPT`,
          `! -d ${loopback} -p tcp -m tcp ! --dport ${ZTUNNEL_PORT.inboundHbone} ${NOT_ZTUNNEL} ${redirect(ZTUNNEL_PORT.inboundPlaintext)}`,
        ]),
      ],
      output: [
        `-d ${probe} -p tcp -m tcp -j ACCEPT`,
        ...dns([
          `! -o lo -p udp ${NOT_ZTUNNEL} -m udp --dport 53 ${redirect(ZTUNNEL_PORT.dns)}`,
          `! -d ${loopback} -p tcp -m tcp --dport 53 ${NOT_ZTUNNEL} ${redirect(ZTUNNEL_PORT.dns)}`,
        ]),
        `-p tcp ${marked(LOCAL_MARK)} -j ACCEPT`,
        `! -d ${loopback} -o lo -j ACCEPT`,
        `! -d ${loopback} -p tcp ${NOT_ZTUNNEL} ${redirect(ZTUNNEL_PORT.outbound)}`,
      ],
    },
  ];
}

interface InetTable {
  readonly name: string;
  readonly type: { readonly prerouting: string; readonly output: string };
  readonly priority: number;
  readonly prerouting: readonly string[];
  readonly output: readonly string[];
}

/** The same for its native nftables form: one transaction. @throws AgentError as above. */
export function upstreamInetText(spec: CaptureSpec): string {
  return inetTables(spec).map(inetText).join("");
}

function inetTables(spec: CaptureSpec): InetTable[] {
  const local = `${hex(MARK_MASK)} == ${hex(LOCAL_MARK)}`;
  const ztunnel = `${hex(MARK_MASK)} == ${hex(ZTUNNEL_MARK)}`;
  const notZtunnel = `meta mark and ${hex(MARK_MASK)} != ${hex(ZTUNNEL_MARK)}`;
  const to = (port: number) => `counter redirect to :${port}`;
  const families = spec.ipv6 ? ([4, 6] as const) : ([4] as const);
  const each = (rule: (ip: string, loopback: string, probe: string) => string) =>
    families.map((family) => {
      const probe = address(family === 4 ? spec.probeIpv4 : spec.probeIpv6, family);
      return rule(family === 4 ? "ip" : "ip6", LOOPBACK[family], probe);
    });
  const filter = { prerouting: "filter", output: "filter" };
  const raw: InetTable = {
    name: RAW_TABLE,
    type: filter,
    priority: -300,
    prerouting: [`udp sport 53 ${notZtunnel} counter ct zone set ${CONNTRACK_ZONE}`],
    output: [`udp dport 53 meta mark and ${ztunnel} counter ct zone set ${CONNTRACK_ZONE}`],
  };
  return [
    ...(spec.dnsCapture ? [raw] : []),
    {
      name: MANGLE_TABLE,
      type: { ...filter, output: "route" },
      priority: -150,
      prerouting: [`meta mark and ${ztunnel} counter ct mark set ct mark and 0xfffff000 or ${hex(LOCAL_MARK)}`],
      output: [`ct mark and ${local} counter meta mark set ct mark`],
    },
    {
      name: NAT_TABLE,
      type: { prerouting: "nat", output: "nat" },
      priority: -100,
      prerouting: [
        ...spec.rerouteInterfaces
          .map(interfaceName)
          .flatMap((name) => [
            `iifname "${name}" meta l4proto tcp ${to(ZTUNNEL_PORT.outbound)}`,
            `iifname "${name}" meta l4proto tcp counter return`,
          ]),
        ...(spec.bypassInbound
          ? []
          : [
              ...each((ip, _, probe) => `meta l4proto tcp ${ip} saddr ${probe} counter accept`),
              ...each(
                (ip, loopback) =>
                  `${ip} daddr != ${loopback} tcp dport != ${ZTUNNEL_PORT.inboundHbone} ${notZtunnel} ${to(ZTUNNEL_PORT.inboundPlaintext)}`,
              ),
            ]),
      ],
      output: [
        ...each((ip, _, probe) => `meta l4proto tcp ${ip} daddr ${probe} counter accept`),
        ...(spec.dnsCapture
          ? [
              `oifname != "lo" ${notZtunnel} udp dport 53 ${to(ZTUNNEL_PORT.dns)}`,
              ...each(
                (ip, loopback) => `${ip} daddr != ${loopback} tcp dport 53 ${notZtunnel} ${to(ZTUNNEL_PORT.dns)}`,
              ),
            ]
          : []),
        `meta l4proto tcp meta mark and ${local} counter accept`,
        ...each((ip, loopback) => `oifname "lo" ${ip} daddr != ${loopback} counter accept`),
        ...each(
          (ip, loopback) => `meta l4proto tcp ${ip} daddr != ${loopback} ${notZtunnel} ${to(ZTUNNEL_PORT.outbound)}`,
        ),
      ],
    },
  ];
}

/** Its agent finds its own tables whatever is in them: it writes them anew as a whole. */
function inetText({ name, type, priority, prerouting, output }: InetTable): string {
  const hooked = (hook: "prerouting" | "output") =>
    `\tchain ${hook} {\n\t\ttype ${type[hook]} hook ${hook} priority ${priority};\n\t}\n`;
  const regular = (hook: string, rules: readonly string[]) =>
    `\tchain istio-${hook} {\n${rules.map((rule) => `\t\t${rule}\n`).join("")}\t}\n`;
  const body = [hooked("prerouting"), hooked("output"), regular("prerouting", prerouting), regular("output", output)];
  const jumps = ["prerouting", "output"].map((hook) => `add rule inet ${name} ${hook} jump istio-${hook}\n`);
  return `add table inet ${name}\nflush table inet ${name}\ntable inet ${name} {\n${body.join("")}}\n${jumps.join("")}`;
}

/** Which chain of upstream's a built-in chain leads to. */
export const JUMPS = [
  { from: "PREROUTING", chain: PREROUTING_CHAIN, rules: "prerouting" },
  { from: "OUTPUT", chain: OUTPUT_CHAIN, rules: "output" },
] as const;
