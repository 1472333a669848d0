// SPDX-License-Identifier: Apache-2.0
// Numbers that all engines made of netfilter rules share.

/**
 * Mark of our own verification connection. It matches LOCAL_MARK/MARK_MASK, so the policy rule leads
 * it to lo whatever the pod's routes are, and only the full value meets the verification rule.
 */
export const VERIFY_MARK = 0xac111;

/** Conntrack zone of the original direction of ztunnel's connections, where they are tracked. */
export const CONNTRACK_ZONE = 1;

/** A number as rule text. */
export function hex(value: number): string {
  return `0x${value.toString(16)}`;
}
