// SPDX-License-Identifier: Apache-2.0
import { familyOf } from "../../core/ip.ts";
import type { CaptureSpec } from "../../core/ports/dataplane.ts";
import type { NativeBinding } from "../../native/binding.ts";
import { glance } from "../glance.ts";
import { plainInterfaces } from "./attachments.ts";

/**
 * Why the engine can't capture this pod, or undefined. The hooks see sockets of the pod's processes, and
 * inbound steering knows the pod's IPs: whatever else comes or goes would pass by.
 */
export function ineligibility(binding: NativeBinding, netns: number, spec: CaptureSpec): string | undefined {
  if (spec.rerouteInterfaces.length > 0) {
    return `its interfaces ${spec.rerouteInterfaces.join(", ")} are to be rerouted, which takes packets and no sockets`;
  }
  const interfaces = plainInterfaces(binding, netns);
  if (interfaces.length !== 1) {
    const names = interfaces.map(({ name }) => name).join(", ");
    return `it has ${interfaces.length} interfaces (${names === "" ? "none is up" : names}), not one`;
  }
  for (const family of [4, 6] as const) {
    const ips = spec.ips.filter((ip) => familyOf(ip) === family);
    if (ips.length > 1) return `it has ${ips.length} IPv${family} addresses (${ips.join(", ")})`;
  }
  const own = glance(binding, netns).addresses;
  if (spec.ips.length > 0 && !spec.ips.some((ip) => own.some(({ address }) => address === ip))) {
    return (
      `none of the pod's addresses (${spec.ips.join(", ")}) is on an interface of its netns: somebody took ` +
      "them away, or its runtime class (gVisor, for one) handles packets itself, and nothing in there can capture them"
    );
  }
  const other = own.find(({ address, scope }) => scope !== "link" && scope !== "host" && !spec.ips.includes(address));
  if (other !== undefined) return `its address ${other.address} is none of status.podIPs (${spec.ips.join(", ")})`;
  return undefined;
}
