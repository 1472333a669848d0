// SPDX-License-Identifier: Apache-2.0
// Traces of upstream's istio-cni in a pod. The policy rule and its route carry the same numbers there
// and here, so they are only removed when nothing of upstream's is left that needs them.
import type { NativeBinding } from "../native/binding.ts";
import { tableNames } from "./netfilter/tables.ts";

const TABLES = /^inet istio-ambient-/;
/** iptables-nft keeps its tables under these names; upstream's chains in them begin with ISTIO_. */
const IPTABLES_NFT = ["nat", "mangle", "raw"] as const;

/** True when upstream's chains or tables are in the netns. No fork. */
export function upstreamPresent(binding: NativeBinding, netns: number): boolean {
  const tables = tableNames(binding, netns);
  if (tables.some((name) => TABLES.test(name))) return true;
  for (const family of ["ip", "ip6"]) {
    for (const name of IPTABLES_NFT) {
      if (!tables.includes(`${family} ${name}`)) continue;
      const chains = binding.nftTable(netns, family, name)?.chains ?? [];
      if (chains.some((chain) => chain.name.startsWith("ISTIO_"))) return true;
    }
  }
  return ([4, 6] as const).some((family) =>
    binding.xtables(netns, family).some(({ chains }) => chains.some(({ name }) => name.startsWith("ISTIO_"))),
  );
}
