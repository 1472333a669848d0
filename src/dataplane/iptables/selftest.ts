// SPDX-License-Identifier: Apache-2.0
import { messageOf } from "../../core/errors.ts";
import type { AddressFamily, NativeBinding } from "../../native/binding.ts";
import { prepareScratchPod, SCRATCH_SPEC } from "../netfilter/scratch-pod.ts";
import { verifyCapture } from "../netfilter/verify.ts";
import { addRouting } from "../routes.ts";
import { ScratchPair } from "../scratch.ts";
import { testSteering } from "../steering-test.ts";
import { type Features, planCapture } from "./plan.ts";
import { CAPTURE, type Variant } from "./ruleset.ts";
import { writeRules } from "./writer.ts";

const LOSS = {
  noIpv6: (reason: string) =>
    `ip6tables does not work (${reason}): pods are captured for IPv4 only, and only with AMBIENT_IPV6=false`,
  markedListeners:
    "an application whose listener has an SO_MARK of its own is not reachable from outside: iptables has no way to learn its port",
  silent:
    "the kernel tells nobody when legacy iptables rules change: what other programs do to a pod's rules is found by the next sweep",
} as const;

export interface VariantTest {
  readonly works: boolean;
  readonly reason: string | undefined;
  readonly losses: readonly string[];
  readonly features: Features;
}

/**
 * Captures a scratch pod with one variant and makes real connections both ways, in both families, with
 * the colliding 4-tuple and with DNS. Never rejects.
 */
export async function testVariant(binding: NativeBinding, variant: Variant): Promise<VariantTest> {
  const losses: string[] = [];
  let features: Features = { sysctls: true, ipv6: true };
  try {
    using pair = ScratchPair.create(binding);
    const prepared = prepareScratchPod(binding, pair);
    losses.push(...prepared.losses);
    features = { ...features, sysctls: prepared.sysctls };
    addRouting(binding, pair.pod.fd, pair.families);
    const write = (families: readonly AddressFamily[]) =>
      writeRules(
        CAPTURE,
        binding,
        pair.pod.fd,
        variant,
        planCapture(SCRATCH_SPEC, features, "captured", families),
        "self-test",
        undefined,
      );
    await write([4]);
    let families: readonly AddressFamily[] = [4];
    if (pair.families.includes(6)) {
      try {
        await write([4, 6]);
        families = [4, 6];
      } catch (error) {
        features = { ...features, ipv6: false };
        losses.push(LOSS.noIpv6(messageOf(error)));
      }
    }
    await verifyCapture(binding, pair.pod.fd, families);
    await testSteering(binding, pair, families);
    if (features.sysctls) losses.push(LOSS.markedListeners);
    if (variant === "legacy") losses.push(LOSS.silent);
    return { works: true, reason: undefined, losses, features };
  } catch (error) {
    return { works: false, reason: messageOf(error), losses, features };
  }
}
