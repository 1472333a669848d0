// SPDX-License-Identifier: Apache-2.0
// What upstream's istio-cni calls its objects in ambient mode, and ours that lie beside them.

/** In tables nat, mangle and raw. A sidecar's rules have ISTIO_OUTPUT too, ISTIO_PRERT is ambient mode's alone. */
export const PREROUTING_CHAIN = "ISTIO_PRERT";
export const OUTPUT_CHAIN = "ISTIO_OUTPUT";
/** On the host, in table nat. */
export const POSTROUTING_CHAIN = "ISTIO_POSTRT";
/** `inet` tables of its native nftables form; the first lies on the host as well. */
export const NAT_TABLE = "istio-ambient-nat";
export const MANGLE_TABLE = "istio-ambient-mangle";
export const RAW_TABLE = "istio-ambient-raw";
/** Sets of the host: addresses of enrolled pods. */
export const PROBE_SETS = ["istio-inpod-probes-v4", "istio-inpod-probes-v6"] as const;

/** shield.ts. The iptables engine's chains are called otherwise: it must not take this one for its own. */
export const SHIELD_CHAIN = "AMBIENT_CNI_SHIELD";
export const SHIELD_TABLE = "ambient-cni-shield";

export function isUpstreamChain(name: string): boolean {
  return name === PREROUTING_CHAIN || name === OUTPUT_CHAIN;
}
