// SPDX-License-Identifier: Apache-2.0
// What arrives at the pod: nat PREROUTING, or mangle in TPROXY mode, where the client's address is kept.
import { SIDECAR_MARK, SIDECAR_PORT, VERIFY_MARK } from "../core/constants.ts";
import type { Family } from "../core/ip.ts";
import type { RedirectionAction, RedirectionMatch, RedirectionRule } from "../core/redirection.ts";
import { rerouted } from "./outbound.ts";
import { each, LOOPBACK, leave, over, PASSTHROUGH, toInbound } from "./rules.ts";
import type { SidecarSettings } from "./settings.ts";

/** False: no port is named, so nothing inbound is redirected. */
export function capturesInbound({ includeInboundPorts }: SidecarSettings): boolean {
  return includeInboundPorts === "*" || includeInboundPorts.length > 0;
}

/** The list of nat PREROUTING. */
export function natPrerouting(settings: SidecarSettings, families: readonly Family[]): RedirectionRule[] {
  const rules: RedirectionRule[] = [
    ...over(settings.excludeInterfaces, (from) => ({ name: "exclude-interface", match: { from }, action: leave })),
    ...rerouted(settings, families),
  ];
  if (settings.mode === "TPROXY" || !capturesInbound(settings)) return rules;
  const captured: RedirectionRule = {
    name: "inbound",
    match: { protocol: "tcp", ...capturedPorts(settings) },
    action: toInbound,
  };
  return [...rules, ...exclusions(settings), captured];
}

/** The list of mangle PREROUTING; `transparent`: it is where inbound traffic is redirected. */
export function manglePrerouting(
  settings: SidecarSettings,
  families: readonly Family[],
  transparent: boolean,
): RedirectionRule[] {
  const excluded = over(settings.excludeInterfaces, (from) => ({
    name: "exclude-interface",
    match: { from },
    action: leave,
  }));
  const invalid: RedirectionRule[] = settings.dropInvalid
    ? [{ name: "invalid", match: { state: "invalid" }, action: { kind: "drop" } }]
    : [];
  if (!transparent) return invalid.length === 0 ? [] : [...excluded, ...invalid];
  const mark = SIDECAR_MARK.inbound;
  const divert: RedirectionAction = { kind: "divert", mark };
  const tproxy: RedirectionAction = { kind: "tproxy", port: SIDECAR_PORT.inbound, mark };
  const captured = capturedPorts(settings);
  return [
    // Our own connection (src/dataplane/sidecar/verify.ts).
    ...each(
      families,
      "verify",
      (family) => ({
        from: ["lo"],
        protocol: "tcp",
        notDestination: LOOPBACK[family],
        mark: VERIFY_MARK.netfilter,
      }),
      { kind: "tproxy", port: undefined, mark },
    ),
    ...excluded,
    ...invalid,
    // Of Envoy's connection to the application, which wears the client's address: so that its answers come back.
    // Over lo only: from elsewhere marked packets are those that the rules of another writer have marked before ours.
    { name: "proxied", match: { from: ["lo"], protocol: "tcp", mark }, action: { kind: "remember-mark" } },
    ...each(families, "passthrough", (family) => ({ from: ["lo"], source: PASSTHROUGH[family] }), leave),
    { name: "local", match: { from: ["lo"], notMark: SIDECAR_MARK.outbound }, action: leave },
    // What is outbound is NAT's.
    ...over(settings.rerouteInterfaces, (from) => ({ name: "reroute", match: { from }, action: leave })),
    ...exclusions(settings),
    { name: "established", match: { protocol: "tcp", ...captured, state: "established" }, action: divert },
    ...each(
      families,
      "inbound",
      (family) => ({ protocol: "tcp", ...captured, notDestination: LOOPBACK[family] }),
      tproxy,
    ),
  ];
}

/** The list of mangle OUTPUT in TPROXY mode. */
export function mangleOutput(settings: SidecarSettings, families: readonly Family[]): RedirectionRule[] {
  const mark: RedirectionAction = { kind: "mark", mark: SIDECAR_MARK.outbound };
  const local = (family: Family): RedirectionMatch => ({
    to: ["lo"],
    protocol: "tcp",
    notDestination: LOOPBACK[family],
  });
  return [
    ...over(settings.excludeInterfaces, (to) => ({ name: "exclude-interface", match: { to }, action: leave })),
    { name: "proxied", match: { to: ["lo"], protocol: "tcp", mark: SIDECAR_MARK.inbound }, action: leave },
    ...each(families, "proxy-uid", (family) => ({ ...local(family), uid: settings.uid }), mark),
    ...each(families, "proxy-gid", (family) => ({ ...local(family), gid: settings.gid }), mark),
    {
      name: "answer",
      match: { protocol: "tcp", connectionMark: SIDECAR_MARK.inbound },
      action: { kind: "recall-mark" },
    },
  ];
}

/** What is inbound and never the proxy's, in both modes. */
function exclusions(settings: SidecarSettings): RedirectionRule[] {
  const tunnel: RedirectionRule = {
    name: "tunnel",
    match: { protocol: "tcp", ports: [SIDECAR_PORT.tunnel] },
    action: leave,
  };
  // Where ports are named that are captured, the others aren't anyway.
  if (settings.includeInboundPorts !== "*") return [tunnel];
  return [
    tunnel,
    { name: "exclude-port", match: { protocol: "tcp", ports: settings.excludeInboundPorts }, action: leave },
  ];
}

function capturedPorts({ includeInboundPorts }: SidecarSettings): Pick<RedirectionMatch, "ports"> {
  return includeInboundPorts === "*" ? {} : { ports: includeInboundPorts };
}
