// SPDX-License-Identifier: Apache-2.0
// Numbers that all engines made of netfilter rules share.
import { SHADOW_RANGE, SPREAD_RANGE } from "../../core/constants.ts";

/** Conntrack zone of the original direction of ztunnel's connections, where they are tracked. */
export const CONNTRACK_ZONE = 1;

/**
 * Where ztunnel's ends of connections lie that the eBPF engine has captured. While a pod changes its engine
 * both steer; in any other netns nothing here is local.
 */
export const EBPF_RANGES = {
  4: [SHADOW_RANGE[4], SPREAD_RANGE[4]],
  6: [SHADOW_RANGE[6], SPREAD_RANGE[6]],
} as const;

/** A number as rule text. */
export function hex(value: number): string {
  return `0x${value.toString(16)}`;
}
