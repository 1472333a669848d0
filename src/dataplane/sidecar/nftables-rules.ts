// SPDX-License-Identifier: Apache-2.0
// A redirection as one nftables table. Pure.
import type { Family } from "../../core/ip.ts";
import {
  REDIRECTION_HOOKS,
  type Redirection,
  type RedirectionAction,
  type RedirectionHook,
  type RedirectionMatch,
  type RedirectionRule,
} from "../../core/redirection.ts";
import { hex } from "../netfilter/numbers.ts";
import { cidrs, interfaceName } from "../netfilter/values.ts";
import type { Hook, Rule, Ruleset } from "../nftables/ruleset.ts";

/** As those of captured pods (nftables/plan.ts): before anybody's DNAT, and zones before conntrack looks up. */
const HOOK: Readonly<Record<RedirectionHook, Hook>> = {
  "raw-prerouting": { type: "filter", hook: "prerouting", priority: -300 },
  "raw-output": { type: "filter", hook: "output", priority: -300 },
  "mangle-prerouting": { type: "filter", hook: "prerouting", priority: -150 },
  // A mark that is set here changes the route.
  "mangle-output": { type: "route", hook: "output", priority: -150 },
  "nat-prerouting": { type: "nat", hook: "prerouting", priority: -110 },
  "nat-output": { type: "nat", hook: "output", priority: -110 },
};

const LOOPBACK = { 4: "127.0.0.1", 6: "::1" } as const;
const NO_IPV6: Rule = { name: "ipv6-off", text: "meta nfproto ipv6 accept" };

/** @throws AgentError BAD_INTERFACE_NAME | BAD_ADDRESS that names the value. */
export function nftablesRules({ hooks, families }: Redirection): Ruleset {
  const ipv6Off = families.includes(6) ? [] : [NO_IPV6];
  const chains = REDIRECTION_HOOKS.filter((hook) => hooks[hook].length > 0).map((hook) => ({
    name: hook,
    hook: HOOK[hook],
    rules: [...ipv6Off, ...hooks[hook].map((rule) => ({ name: rule.name, text: textOf(rule) }))],
  }));
  return { sets: [], chains };
}

function textOf({ match, action }: RedirectionRule): string {
  return [...matchText(match), actionText(action, match.family)].join(" ");
}

function matchText(match: RedirectionMatch): string[] {
  const { protocol, family } = match;
  const ip = family === 6 ? "ip6" : "ip";
  const words: string[] = [];
  if (match.from !== undefined) words.push(interfaces("iif", match.from));
  if (match.to !== undefined) words.push(interfaces("oif", match.to));
  if (family !== undefined) words.push(`meta nfproto ipv${family}`);
  if (protocol !== undefined) words.push(`meta l4proto ${protocol}`);
  if (match.source !== undefined) words.push(`${ip} saddr ${list(networks([match.source], family))}`);
  if (match.destinations !== undefined) words.push(`${ip} daddr ${list(networks(match.destinations, family))}`);
  if (match.notDestination !== undefined)
    words.push(`${ip} daddr != ${list(networks([match.notDestination], family))}`);
  if (match.ports !== undefined) words.push(`${protocol} dport ${list(match.ports)}`);
  if (match.notPorts !== undefined) words.push(`${protocol} dport != ${list(match.notPorts)}`);
  if (match.sourcePort !== undefined) words.push(`${protocol} sport ${match.sourcePort}`);
  if (match.uid !== undefined) words.push(`meta skuid ${match.uid}`);
  if (match.notUid !== undefined) words.push(`meta skuid != ${match.notUid}`);
  if (match.gid !== undefined) words.push(`meta skgid ${match.gid}`);
  if (match.notGids !== undefined) words.push(`meta skgid != ${list(match.notGids)}`);
  if (match.mark !== undefined) words.push(`meta mark ${hex(match.mark)}`);
  if (match.notMark !== undefined) words.push(`meta mark != ${hex(match.notMark)}`);
  if (match.connectionMark !== undefined) words.push(`ct mark ${hex(match.connectionMark)}`);
  if (match.state !== undefined)
    words.push(`ct state ${match.state === "invalid" ? "invalid" : "established,related"}`);
  return words;
}

function actionText(action: RedirectionAction, family: Family | undefined): string {
  switch (action.kind) {
    case "leave":
      return "accept";
    case "drop":
      return "counter drop";
    case "redirect":
      return action.port === undefined ? "redirect" : `counter redirect to :${action.port}`;
    case "tproxy": {
      const version = family === 6 ? 6 : 4;
      const to = action.port === undefined ? LOOPBACK[version] : `:${action.port}`;
      return `counter tproxy ip${version === 6 ? "6" : ""} to ${to} meta mark set ${hex(action.mark)} accept`;
    }
    case "divert":
      return `meta mark set ${hex(action.mark)} accept`;
    case "remember-mark":
      return "ct mark set meta mark accept";
    case "recall-mark":
      return "meta mark set ct mark accept";
    case "mark":
      return `meta mark set ${hex(action.mark)}`;
    case "zone":
      return `ct zone set ${action.zone} accept`;
  }
}

/** `lo` by its index, which every netns has. */
function interfaces(where: "iif" | "oif", names: readonly string[]): string {
  const [only, ...others] = names;
  if (only === "lo" && others.length === 0) return `${where} "lo"`;
  return `${where}name ${list([...new Set(names)].map((name) => `"${interfaceName(name)}"`))}`;
}

function networks(texts: readonly string[], family: Family | undefined): readonly string[] {
  return cidrs(texts, family ?? 4);
}

function list(values: readonly (string | number)[]): string {
  return values.length === 1 ? String(values[0]) : `{ ${values.join(", ")} }`;
}
