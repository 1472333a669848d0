// SPDX-License-Identifier: Apache-2.0
// What leaves the pod, or stays in it: nat OUTPUT, and what is treated like it.
import { SIDECAR_PORT, VERIFY_MARK } from "../core/constants.ts";
import { type Family, familyOf } from "../core/ip.ts";
import type { RedirectionAction, RedirectionMatch, RedirectionRule } from "../core/redirection.ts";
import { each, LOOPBACK, leave, over, PASSTHROUGH, toDns, toInbound, toOutbound } from "./rules.ts";
import type { SidecarSettings } from "./settings.ts";

/** Groups whose outbound traffic is redirected: all but some, or only some. A setting of the node. */
export interface OwnerGroups {
  readonly include: "*" | readonly number[];
  readonly exclude: readonly number[];
}

export const ALL_GROUPS: OwnerGroups = { include: "*", exclude: [] };

const DNS = 53;

/** The list of nat OUTPUT. */
export function natOutput(
  settings: SidecarSettings,
  families: readonly Family[],
  groups: OwnerGroups,
): RedirectionRule[] {
  const { excludeOutboundPorts, includeOutboundPorts, includeOutboundCidrs, uid, gid } = settings;
  return [
    ...verification(families),
    ...over(settings.excludeInterfaces, (to) => ({ name: "exclude-interface", match: { to }, action: leave })),
    ...(["tcp", "udp"] as const).flatMap((protocol) =>
      over(excludeOutboundPorts, (ports) => ({
        name: `exclude-${protocol}-port`,
        match: { protocol, ports },
        action: leave,
      })),
    ),
    ...each(families, "passthrough", (family) => ({ to: ["lo"], source: PASSTHROUGH[family] }), leave),
    ...proxied(settings, families, "uid", { uid }, { notUid: uid }),
    ...proxied(settings, families, "gid", { gid }, { notGids: [gid] }),
    ...ownerGroups(groups),
    ...(settings.dnsCapture
      ? (["tcp", "udp"] as const).map((protocol) => ({
          name: `dns-${protocol}`,
          match: { protocol, ports: [DNS] },
          action: toDns,
        }))
      : []),
    ...each(families, "loopback", (family) => ({ destinations: [LOOPBACK[family]] }), leave),
    ...cidrRules(settings.excludeOutboundCidrs, families, "exclude-range", {}, leave),
    ...over(includeOutboundPorts, (ports) => ({
      name: "include-port",
      match: { protocol: "tcp", ports },
      action: toOutbound,
    })),
    ...included(includeOutboundCidrs, families, "outbound", {}),
  ];
}

/** Traffic of a virtual machine in the pod, say: it arrives, and is outbound. */
export function rerouted(settings: SidecarSettings, families: readonly Family[]): RedirectionRule[] {
  const { rerouteInterfaces, includeOutboundCidrs } = settings;
  if (rerouteInterfaces.length === 0) return [];
  return [
    ...included(includeOutboundCidrs, families, "reroute", { from: rerouteInterfaces }),
    { name: "reroute-rest", match: { from: rerouteInterfaces }, action: leave },
  ];
}

/** Our own connections (src/dataplane/sidecar/verify.ts); what else wears their mark is for mangle to take. */
function verification(families: readonly Family[]): RedirectionRule[] {
  const own: RedirectionMatch = { to: ["lo"], protocol: "tcp", mark: VERIFY_MARK.netfilter };
  return [
    ...each(families, "verify", (family) => ({ ...own, destinations: [PASSTHROUGH[family]] }), {
      kind: "redirect",
      port: undefined,
    }),
    { name: "verify-other", match: own, action: leave },
  ];
}

/** What leaves the proxy, told by its user or by its group, and what stays in the pod and is not the proxy's. */
function proxied(
  settings: SidecarSettings,
  families: readonly Family[],
  name: "uid" | "gid",
  own: RedirectionMatch,
  notOwn: RedirectionMatch,
): RedirectionRule[] {
  const { dnsCapture, includeOutboundCidrs } = settings;
  // The proxy's own DNS over TCP goes to the nameserver also where that is in the pod.
  const notPorts = [...(dnsCapture ? [DNS] : []), SIDECAR_PORT.tunnel];
  const back = (family: Family): RedirectionMatch => ({
    to: ["lo"],
    protocol: "tcp",
    notDestination: LOOPBACK[family],
    notPorts,
    ...own,
  });
  const wantsLoopback = includeOutboundCidrs !== "*" && includeOutboundCidrs.some(isLoopback);
  const local: RedirectionRule[] = wantsLoopback
    ? []
    : [
        {
          name: `local-${name}`,
          // An application may ask a nameserver of its own pod.
          match: { to: ["lo"], ...notOwn, ...(dnsCapture ? { protocol: "tcp" as const, notPorts: [DNS] } : {}) },
          action: leave,
        },
      ];
  return [
    // The application calls itself through a service: its answer comes by the proxy's inbound side.
    ...each(families, `self-${name}`, back, toInbound),
    ...local,
    { name: `proxy-${name}`, match: own, action: leave },
  ];
}

function ownerGroups({ include, exclude }: OwnerGroups): RedirectionRule[] {
  if (include !== "*") return [{ name: "group", match: { notGids: include }, action: leave }];
  return exclude.map((gid) => ({ name: `group-${gid}`, match: { gid }, action: leave }));
}

/** Redirects what goes to these networks, or everything. */
function included(
  cidrs: "*" | readonly string[],
  families: readonly Family[],
  name: string,
  match: RedirectionMatch,
): RedirectionRule[] {
  const tcp: RedirectionMatch = { ...match, protocol: "tcp" };
  if (cidrs === "*") return [{ name, match: tcp, action: toOutbound }];
  return cidrRules(cidrs, families, name, tcp, toOutbound);
}

function cidrRules(
  cidrs: readonly string[],
  families: readonly Family[],
  name: string,
  match: RedirectionMatch,
  action: RedirectionAction,
): RedirectionRule[] {
  return families.flatMap((family) =>
    over(
      cidrs.filter((cidr) => familyOf(cidr) === family),
      (destinations) => ({ name: `${name}-v${family}`, match: { ...match, family, destinations }, action }),
    ),
  );
}

function isLoopback(cidr: string): boolean {
  return cidr.startsWith("127.") || cidr === LOOPBACK[6];
}
