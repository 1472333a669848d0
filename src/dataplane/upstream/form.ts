// SPDX-License-Identifier: Apache-2.0
// In which form upstream's agent would write its rules on this node: another one it would not see.
import type { Config } from "../../core/config/config.ts";
import type { AddressFamily, NativeBinding, NetnsArg } from "../../native/binding.ts";
import type { Variant } from "../iptables/ruleset.ts";

/** Upstream reads the same ones. */
export type UpstreamSettings = Partial<Pick<Config, "nativeNftables" | "forceIptablesBinary">>;
export type UpstreamForm = "nftables" | Readonly<Record<AddressFamily, Variant>>;

/**
 * As upstream's agent decides when it starts, each family by itself: what it is told to, else legacy where the
 * node's netns has legacy tables (empty ones count: their listing alone is what it looks for), else nft.
 */
export function upstreamForm(binding: NativeBinding, host: NetnsArg, config: UpstreamSettings): UpstreamForm {
  if (config.nativeNftables) return "nftables";
  const variant = (family: AddressFamily): Variant =>
    config.forceIptablesBinary ?? (binding.xtables(host, family).length > 0 ? "legacy" : "nft");
  return { 4: variant(4), 6: variant(6) };
}
