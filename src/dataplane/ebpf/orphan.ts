// SPDX-License-Identifier: Apache-2.0
import type { NativeBinding } from "../../native/binding.ts";
import { removeLocalRoutes } from "./local-routes.ts";

const LO_INDEX = 1;

/**
 * For an agent without the pins: true when programs of an agent before capture this netns. Where their link
 * has gone with its bpffs, only filters are left, which refuse what they can't hand on: those are removed.
 */
export function orphanedCapture(binding: NativeBinding, netns: number): boolean {
  if (binding.bpfFilterState(netns, LO_INDEX).ingress === 0) return false;
  if (binding.bpfNetnsLinked(netns)) return true;
  for (const { index } of binding.links(netns)) binding.bpfFilterDetach(netns, index);
  removeLocalRoutes(binding, netns);
  return false;
}
