// SPDX-License-Identifier: Apache-2.0
// Pods with something of ours in their netns, found through the node's /proc alone.
import type { Config } from "../../core/config/config.ts";
import { messageOf } from "../../core/errors.ts";
import { canonicalIp } from "../../core/ip.ts";
import type { CaptureSpec, EngineName } from "../../core/ports/dataplane.ts";
import { podTitle } from "../../core/report/pods.ts";
import { readPinned } from "../../dataplane/ebpf/pinned.ts";
import { tracesOf } from "../../dataplane/traces.ts";
import { upstreamTraces } from "../../dataplane/upstream/traces.ts";
import type { NativeBinding } from "../../native/binding.ts";
import { findResidents, type Resident } from "../../netns/residents.ts";
import { podNames } from "../../sys/pod-logs.ts";

export interface Captive {
  readonly uid: string;
  /** `namespace/name`, or the uid where the node does not tell. */
  readonly pod: string;
  readonly ips: readonly string[];
  /** Those that have something in the netns; none: it can't be read. */
  readonly engines: readonly EngineName[];
  /** Why the netns can't be read. */
  readonly obstacle: string | undefined;
  /** istio-cni's rules capture it: a pod of that agent's, whatever of ours is still in it. */
  readonly handedOver: boolean;
  readonly resident: Resident;
}

/** The caller closes them with `release`. @throws AgentError PROC_UNREADABLE | HOST_NETNS_UNKNOWN */
export async function findCaptives(binding: NativeBinding, procDir: string): Promise<readonly Captive[]> {
  const names = podNames(procDir);
  const pinned = readPinned(binding, procDir);
  const captives: Captive[] = [];
  for (const resident of await findResidents(procDir)) {
    const { netns, podUid, containerId } = resident;
    const uid = podUid ?? containerId ?? "";
    const { namespace = null, name = null } = names.get(uid) ?? {};
    const seen = { uid, pod: podTitle({ uid, namespace, name }), resident };
    try {
      const engines = tracesOf(binding, netns.fd, pinned).map(({ engine }) => engine);
      const ips = binding
        .addresses(netns.fd)
        .filter(({ scope }) => scope === "global")
        .map(({ address }) => canonicalIp(address));
      if (engines.length === 0) netns.close();
      else {
        const handedOver = upstreamTraces(binding, netns.fd)?.steers === true;
        captives.push({ ...seen, ips, engines, obstacle: undefined, handedOver });
      }
    } catch (error) {
      captives.push({ ...seen, ips: [], engines: [], obstacle: messageOf(error), handedOver: false });
    }
  }
  return captives;
}

export function closeAll(captives: readonly Captive[]): void {
  for (const { resident } of captives) resident.netns.close();
}

/** As far as the netns and the node's settings tell: enough to let its connections end. */
export function specOf({ uid, pod, ips }: Captive, config: Config): CaptureSpec {
  return {
    uid,
    pod,
    ips,
    ipv6: ips.some((ip) => ip.includes(":")),
    dnsCapture: true,
    dnsServers: undefined,
    bypassInbound: false,
    rerouteInterfaces: [],
    excludeOutboundCidrs: [],
    probeIpv4: config.probeIpv4,
    probeIpv6: config.probeIpv6,
  };
}
