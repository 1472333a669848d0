// SPDX-License-Identifier: Apache-2.0
import type { Config } from "../core/config/config.ts";
import { type Eligibility, type EligibilityRules, evaluate } from "../core/eligibility.ts";
import { captureOverrides } from "../core/overrides.ts";
import { type Pod, podKey } from "../core/pod.ts";
import type { Cluster } from "../core/ports/cluster.ts";
import type { CaptureSpec } from "../core/ports/dataplane.ts";

/** Nameservers a pod of this DNS policy asks; undefined = not known, capture every port 53. */
export type Nameservers = (pod: Pod) => readonly string[] | undefined;

/** The node's rules; with ambient off nothing is selected. */
export function rulesOf(config: Config): EligibilityRules {
  return {
    enablementSelectors: config.ambientEnabled ? config.enablementSelectors : [],
    excludedNamespaces: config.excludedNamespaces,
  };
}

/** Whether the pod belongs to the mesh, from the caches alone. */
export function eligibilityOf(config: Config, cluster: Cluster, pod: Pod): Eligibility {
  return evaluate(rulesOf(config), pod, cluster.namespace(pod.namespace)?.labels);
}

/**
 * What must be true of a pod's traffic.
 * @throws AgentError ANNOTATION_INVALID naming annotation and value.
 */
export function captureSpec(
  config: Config,
  pod: Pod,
  ips: readonly string[],
  nameservers: Nameservers,
): { readonly spec: CaptureSpec; readonly warnings: readonly string[] } {
  const overrides = captureOverrides(pod, config);
  const spec: CaptureSpec = {
    uid: pod.uid,
    pod: podKey(pod),
    ips,
    ipv6: config.ipv6,
    dnsCapture: overrides.dnsCapture,
    dnsServers: config.dnsCaptureServers === "all" ? undefined : nameservers(pod),
    bypassInbound: overrides.bypassInbound,
    rerouteInterfaces: overrides.rerouteInterfaces,
    ...(overrides.engine === undefined ? {} : { engine: overrides.engine }),
    excludeOutboundCidrs: overrides.excludeOutboundCidrs,
    probeIpv4: config.probeIpv4,
    probeIpv6: config.probeIpv6,
  };
  const ipv6 = config.ipv6 ? [] : ips.filter((ip) => ip.includes(":"));
  const open = ipv6.map((ip) => `traffic of ${ip} is not captured: AMBIENT_IPV6 is false on this node`);
  return { spec, warnings: [...overrides.warnings, ...open] };
}

/** Addresses of the spec that this node captures. */
export function exemptibleIps(config: Config, ips: readonly string[]): readonly string[] {
  return config.ipv6 ? ips : ips.filter((ip) => !ip.includes(":"));
}
