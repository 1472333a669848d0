// SPDX-License-Identifier: Apache-2.0
import { canonicalIp } from "../core/ip.ts";
import type { Pod } from "../core/pod.ts";
import type { Nameservers } from "./desire.ts";

/** Nameserver lists that a pod's DNS policy refers to; undefined = could not be read. */
export interface NameserverSources {
  /** The cluster's, as our own pod got them from kubelet. */
  readonly cluster: readonly string[] | undefined;
  /** The node's own. */
  readonly node: readonly string[] | undefined;
}

/**
 * Nameservers in a pod's resolv.conf, from its spec alone (a new pod has no file yet): dnsConfig's
 * come first or, with policy None, alone. Undefined where a list is unknown: then all are captured.
 */
export function nameserversFrom(sources: NameserverSources): Nameservers {
  return (pod: Pod) => {
    const own = pod.dnsNameservers.flatMap((address) => {
      try {
        return [canonicalIp(address)];
      } catch {
        return [];
      }
    });
    if (pod.dnsPolicy === "None") return own;
    const base = pod.dnsPolicy === "Default" ? sources.node : sources.cluster;
    return base === undefined ? undefined : [...new Set([...base, ...own])];
  };
}
