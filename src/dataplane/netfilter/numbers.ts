// SPDX-License-Identifier: Apache-2.0
// Numbers that all engines made of netfilter rules share.

/** Conntrack zone of the original direction of ztunnel's connections, where they are tracked. */
export const CONNTRACK_ZONE = 1;

/** A number as rule text. */
export function hex(value: number): string {
  return `0x${value.toString(16)}`;
}
