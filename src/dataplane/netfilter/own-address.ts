// SPDX-License-Identifier: Apache-2.0
import type { CaptureSpec } from "../../core/ports/dataplane.ts";
import type { NativeBinding } from "../../native/binding.ts";

/** Why rules inside this netns would see none of the pod's traffic, or undefined when they would. */
export function addressObstacle(binding: NativeBinding, netns: number, spec: CaptureSpec): string | undefined {
  if (spec.ips.length === 0) return undefined;
  const own = binding.addresses(netns).map(({ address }) => address);
  if (spec.ips.some((ip) => own.includes(ip))) return undefined;
  return (
    `none of the pod's addresses (${spec.ips.join(", ")}) is on an interface of its netns: somebody took ` +
    "them away, or its runtime class (gVisor, for one) handles packets itself, and nothing in there can capture them"
  );
}
