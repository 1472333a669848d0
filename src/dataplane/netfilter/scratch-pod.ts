// SPDX-License-Identifier: Apache-2.0
// What the self-tests of all engines made of netfilter rules share: the scratch pod and what it lacks.
import { PROBE_SNAT_IPV4, PROBE_SNAT_IPV6 } from "../../core/constants.ts";
import type { CaptureSpec } from "../../core/ports/dataplane.ts";
import type { NativeBinding } from "../../native/binding.ts";
import type { ScratchPair } from "../scratch.ts";
import { EARLY_DEMUX, HALF_CLOSED, setSysctls } from "../sysctls.ts";

const LOSS = {
  noSysctls: (keys: string) =>
    `sysctls of a pod can't be set (${keys}): ztunnel's connections to applications are tracked by conntrack, ` +
    "which costs one entry more per inbound connection and some throughput",
  noMigration: (reason: string) =>
    `net/ipv4/tcp_migrate_req can't be set (${reason}): connections that wait in the queue of a ztunnel that ends are reset`,
  earlyDemux: (reason: string) =>
    `net/ipv4/ip_early_demux can't be set (${reason}): a client that calls two ports of a pod from one port of its own is not answered by the second`,
  halfClosed: (key: string, reason: string) =>
    `${key} can't be set (${reason}): of a connection that one end has half closed and that is silent for a minute or two ` +
    "an answer is lost, and what its application still writes leaves in the clear",
  noIpv6: "new network namespaces have no IPv6: IPv6 capture was not tested",
} as const;

/** What a scratch pod is captured by. */
export const SCRATCH_SPEC: CaptureSpec = {
  uid: "self-test",
  pod: "self/test",
  ips: [],
  ipv6: true,
  dnsCapture: true,
  dnsServers: undefined,
  bypassInbound: false,
  rerouteInterfaces: [],
  excludeOutboundCidrs: [],
  probeIpv4: PROBE_SNAT_IPV4,
  probeIpv6: PROBE_SNAT_IPV6,
};

/** Sets the scratch pod's sysctls. Returns whether all that are needed could be, and what is lost. */
export function prepareScratchPod(
  binding: NativeBinding,
  pair: ScratchPair,
): { readonly sysctls: boolean; readonly losses: readonly string[] } {
  const losses: string[] = [];
  if (!pair.families.includes(6)) losses.push(LOSS.noIpv6);
  const { failures } = setSysctls(binding, pair.pod.fd, true);
  const denied = failures.filter(({ required }) => required);
  if (denied.length > 0) {
    losses.push(LOSS.noSysctls(denied.map(({ key, reason }) => `${key}: ${reason}`).join(", ")));
  }
  for (const { letter, key, reason } of failures) {
    if (letter === "m") losses.push(LOSS.noMigration(reason));
    if (letter === EARLY_DEMUX) losses.push(LOSS.earlyDemux(reason));
    // ENOENT: conntrack is loaded by the first rule that needs it.
    if (letter === HALF_CLOSED[0] && reason !== "ENOENT") losses.push(LOSS.halfClosed(key, reason));
  }
  return { sysctls: denied.length === 0, losses };
}
