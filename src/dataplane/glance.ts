// SPDX-License-Identifier: Apache-2.0
import type { Address, AddressFamily, Link, NativeBinding } from "../native/binding.ts";
import { families } from "./routes.ts";

/** What one look into a netns shows of what none of our own steps changes. */
export interface Glance {
  readonly links: readonly Link[];
  readonly addresses: readonly Address[];
  /** Families that are captured, where the node wants IPv6. */
  readonly families: readonly AddressFamily[];
}

/** Looks by netns fd; all of them end with the turn of the event loop that took them. */
const glances = new Map<number, Glance>();

/**
 * Links, addresses and families of a netns. One enrolment asks for them in several places within one turn of
 * the event loop: those get one answer.
 */
export function glance(binding: NativeBinding, netns: number): Glance {
  const known = glances.get(netns);
  if (known !== undefined) return known;
  const seen = {
    links: binding.links(netns),
    addresses: binding.addresses(netns),
    families: families(binding, netns, true),
  };
  if (glances.size === 0) setImmediate(() => glances.clear());
  glances.set(netns, seen);
  return seen;
}
