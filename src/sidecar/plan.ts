// SPDX-License-Identifier: Apache-2.0
// From a sidecar's settings to what must happen to each packet: first match wins. Pure.
import { SIDECAR_MARK, SIDECAR_PORT, SIDECAR_ROUTE_TABLE } from "../core/constants.ts";
import { type Family, familyOf } from "../core/ip.ts";
import type { Redirection, RedirectionMatch, RedirectionRule } from "../core/redirection.ts";
import { capturesInbound, mangleOutput, manglePrerouting, natPrerouting } from "./inbound.ts";
import { ALL_GROUPS, natOutput, type OwnerGroups } from "./outbound.ts";
import type { SidecarSettings } from "./settings.ts";

/** Conntrack zones of DNS: of the proxy's questions, and of the application's. */
const ZONE = { proxy: 1, application: 2 } as const;
const DNS = 53;

/**
 * The families that a sidecar serves. As upstream: that of the pod's first address, and both only with
 * ISTIO_DUAL_STACK, because without it Envoy listens in one. IPv4 always: its loopback is used anyway.
 */
export function redirectedFamilies(ips: readonly string[], dualStack: boolean): readonly Family[] {
  const served = dualStack ? ips : ips.slice(0, 1);
  return served.some((ip) => familyOf(ip) === 6) ? [4, 6] : [4];
}

/** What must happen to the packets of a sidecar pod with these addresses. */
export function planRedirection(
  settings: SidecarSettings,
  ips: readonly string[],
  groups: OwnerGroups = ALL_GROUPS,
): Redirection {
  const families = redirectedFamilies(ips, settings.dualStack);
  const transparent = settings.mode === "TPROXY" && capturesInbound(settings);
  return {
    families,
    hooks: {
      "raw-prerouting": settings.dnsCapture ? rawPrerouting() : [],
      "raw-output": settings.dnsCapture ? rawOutput(settings) : [],
      "mangle-prerouting": manglePrerouting(settings, families, transparent),
      "mangle-output": transparent ? mangleOutput(settings, families) : [],
      "nat-prerouting": natPrerouting(settings, families),
      "nat-output": natOutput(settings, families, groups),
    },
    deliver: transparent ? { mark: SIDECAR_MARK.inbound, table: SIDECAR_ROUTE_TABLE } : undefined,
    loopback: families.includes(6) ? ["::6"] : [],
  };
}

function rawPrerouting(): RedirectionRule[] {
  return [
    {
      name: "dns-answer",
      match: { protocol: "udp", sourcePort: DNS },
      action: { kind: "zone", zone: ZONE.proxy },
    },
  ];
}

/** Else the proxy's question could have the ports of an application's that is redirected to it. */
function rawOutput({ uid, gid }: SidecarSettings): RedirectionRule[] {
  const question: RedirectionMatch = { protocol: "udp", ports: [DNS] };
  const answer: RedirectionMatch = { protocol: "udp", sourcePort: SIDECAR_PORT.dns };
  const owners = [
    ["uid", { uid }],
    ["gid", { gid }],
  ] as const;
  return [
    ...owners.flatMap(([name, owner]): RedirectionRule[] => [
      { name: `dns-proxy-${name}`, match: { ...question, ...owner }, action: { kind: "zone", zone: ZONE.proxy } },
      { name: `dns-reply-${name}`, match: { ...answer, ...owner }, action: { kind: "zone", zone: ZONE.application } },
    ]),
    { name: "dns-application", match: question, action: { kind: "zone", zone: ZONE.application } },
  ];
}
