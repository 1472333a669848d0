// SPDX-License-Identifier: Apache-2.0
// Which iptables a pod gets. A pod never has rules in both: each variant is blind for the other's.
import type { EngineTest } from "../../core/ports/dataplane.ts";
import type { AddressFamily, NativeBinding } from "../../native/binding.ts";
import { hasOwned, hasUpstream, readTables } from "./kernel.ts";
import type { Features } from "./plan.ts";
import { CAPTURE, VARIANTS, type Variant } from "./ruleset.ts";
import { testVariant, type VariantTest } from "./selftest.ts";

/** Until the self-test has said otherwise. */
const ASSUMED: Features = { sysctls: true, ipv6: true };

/** The variants of this node: what is known of each, and which one is for whom. */
export class Variants {
  readonly #tests = new Map<Variant, VariantTest>();
  #preferred: Variant;

  constructor(
    private readonly binding: NativeBinding,
    private readonly forced: Variant | undefined,
  ) {
    this.#preferred = forced ?? "nft";
  }

  /** What a pod without any rules gets. */
  get preferred(): Variant {
    return this.#preferred;
  }

  features(variant: Variant): Features {
    return this.#tests.get(variant)?.features ?? ASSUMED;
  }

  /** Tests both: pods may have either. Never rejects. */
  async test(): Promise<EngineTest> {
    const began = performance.now();
    const order = variantOrder(this.binding);
    for (const variant of order) this.#tests.set(variant, await testVariant(this.binding, variant));
    const candidates = this.forced === undefined ? order : [this.forced];
    const working = candidates.find((variant) => this.#tests.get(variant)?.works);
    this.#preferred = working ?? candidates[0] ?? "nft";
    const reasons = candidates.map((variant) => `iptables-${variant}: ${this.#tests.get(variant)?.reason}`);
    return {
      engine: "iptables",
      works: working !== undefined,
      reason: working === undefined ? reasons.join("; ") : undefined,
      losses: this.#tests.get(this.#preferred)?.losses ?? [],
      milliseconds: performance.now() - began,
    };
  }

  /** The one whose rules are in the netns, ours before upstream's, else the preferred one. */
  of(netns: number): Variant {
    const found = VARIANTS.map((variant) => ({ variant, tables: readTables(this.binding, netns, variant) }));
    const ours =
      found.find(({ tables }) => hasOwned(CAPTURE, tables)) ?? found.find(({ tables }) => hasUpstream(tables));
    return ours?.variant ?? this.#preferred;
  }

  /** Why this variant can't capture these families, or undefined. */
  obstacle(variant: Variant, families: readonly AddressFamily[]): string | undefined {
    const test = this.#tests.get(variant);
    if (test === undefined) return undefined;
    if (!test.works) {
      return `its netns has rules of iptables-${variant}, which does not work on this node: ${test.reason}`;
    }
    if (!families.includes(6) || test.features.ipv6) return undefined;
    return `it has IPv6, and ip6tables-${variant} does not work on this node`;
  }
}

/** As upstream: the host's choice first. Whatever rules it has in legacy tables were put there by it. */
export function variantOrder(binding: NativeBinding): readonly [Variant, Variant] {
  const legacy = readTables(binding, null, "legacy").some(({ rules }) => rules.length > 0);
  return legacy ? ["legacy", "nft"] : ["nft", "legacy"];
}
