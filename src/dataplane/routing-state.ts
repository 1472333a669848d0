// SPDX-License-Identifier: Apache-2.0
// What is common to all engines in a pod, compared with what its families and this engine need.
import { familyOf } from "../core/ip.ts";
import type { CaptureSpec } from "../core/ports/dataplane.ts";
import type { NetnsHandle } from "../core/ports/netns.ts";
import type { AddressFamily, NativeBinding } from "../native/binding.ts";
import type { Engine } from "./engine.ts";
import { glance } from "./glance.ts";
import { missingRouting, needlessRouting } from "./routes.ts";
import { wrongSysctls } from "./sysctls.ts";
import { upstreamPresent } from "./upstream/traces.ts";

/** Families that are captured in this pod. */
export function familiesOf(
  binding: NativeBinding,
  netns: NetnsHandle,
  { ipv6 }: CaptureSpec,
): readonly AddressFamily[] {
  return glance(binding, netns.fd).families.filter((family) => family === 4 || ipv6);
}

/** Why nothing that reaches this pod would be captured: rules of a family it has no address of prove nothing. */
export function familyObstacle(binding: NativeBinding, netns: NetnsHandle, spec: CaptureSpec): string | undefined {
  const captured = familiesOf(binding, netns, spec);
  if (spec.ips.length === 0 || spec.ips.some((ip) => captured.includes(familyOf(ip)))) return undefined;
  const why = spec.ipv6
    ? "net.ipv6.conf.lo.disable_ipv6 is not 0 in its netns, so AMBIENT_IPV6 has no effect there"
    : "AMBIENT_IPV6 is false on this node";
  return `all of its addresses (${spec.ips.join(", ")}) are IPv6, which is not captured: ${why}`;
}

/** Families with routing of ours that are not captured any more. Upstream's is the same, and not ours. */
export function unneededFamilies(
  binding: NativeBinding,
  netns: NetnsHandle,
  spec: CaptureSpec,
): readonly AddressFamily[] {
  const needless = needlessRouting(binding, netns.fd, familiesOf(binding, netns, spec));
  return needless.length > 0 && upstreamPresent(binding, netns.fd) ? [] : needless;
}

/** Sentences about what is not as it should be. */
export function wrongState(
  binding: NativeBinding,
  netns: NetnsHandle,
  spec: CaptureSpec,
  { needsSysctls, translates }: Pick<Engine, "needsSysctls" | "translates">,
): string[] {
  const obstacle = familyObstacle(binding, netns, spec);
  return [
    ...(obstacle === undefined ? [] : [obstacle]),
    ...missingRouting(binding, netns.fd, familiesOf(binding, netns, spec)),
    ...unneededFamilies(binding, netns, spec).map(
      (family) => `IPv${family} is not captured, but its policy rule is there`,
    ),
    ...(needsSysctls ? wrongSysctls(binding, netns.fd, translates) : []),
  ];
}
