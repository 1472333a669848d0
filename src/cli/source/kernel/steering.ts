// SPDX-License-Identifier: Apache-2.0
// What a pod's capture was made for, by what is in its netns: the settings of the process that looks are not the agent's.
import { POD_TABLE } from "../../../core/constants.ts";
import type { ProofReport } from "../../../core/report/proofs.ts";
import type { Pinned } from "../../../dataplane/ebpf/pinned.ts";
import { type KernelTable, readTables } from "../../../dataplane/iptables/kernel.ts";
import { CAPTURE, VARIANTS } from "../../../dataplane/iptables/ruleset.ts";
import { tableNames } from "../../../dataplane/netfilter/tables.ts";
import { missingRouting } from "../../../dataplane/routes.ts";
import type { NativeBinding } from "../../../native/binding.ts";
import type { PinnedPod } from "../../../native/bpf.ts";

/** The rule of our table that lets all IPv6 pass. */
const IPV6_OFF = "ipv6-off";

export interface Steering {
  readonly ipv6: boolean;
  /** any: whoever is asked; some: only of nameservers whose addresses can't be read here; a list: of these. */
  readonly dns: "none" | "any" | "some" | readonly string[];
  /** Only where the eBPF engine's entry says so: a rule that is missing may have been taken away. */
  readonly bypassInbound: boolean;
}

/** What of a netns it is told by. */
export interface SteeringSigns {
  /** Its entry of the eBPF engine's. */
  readonly pod: PinnedPod | undefined;
  /** Names of the rules of our table. */
  readonly rules: readonly string[];
  /** Those that have chains of ours. */
  readonly tables: readonly KernelTable[];
  /** Anything of our policy routing is there for IPv6. */
  readonly routed6: boolean;
}

/** @throws NativeError */
export function steeringIn(binding: NativeBinding, netns: number, { pods }: Pinned): Steering {
  const hasTable = tableNames(binding, netns).includes(`inet ${POD_TABLE}`);
  return steeringOf({
    pod: pods.get(binding.netnsCookie(netns)),
    rules: hasTable ? (binding.nftTable(netns, "inet", POD_TABLE)?.rules ?? []).map(({ comment }) => comment) : [],
    tables: VARIANTS.flatMap((variant) => readTables(binding, netns, variant)),
    // Rule and route: one of them is enough of a sign.
    routed6: missingRouting(binding, netns, [6]).length < 2,
  });
}

/** One sign is enough: whatever else should be beside it is what a proof shows. */
export function steeringOf({ pod, rules, tables, routed6 }: SteeringSigns): Steering {
  const ours = tables.filter(({ chains }) => chains.some(CAPTURE.owns));
  const names = [
    ...rules,
    ...ours.flatMap((table) => table.rules.filter(({ chain }) => CAPTURE.owns(chain)).map(({ comment }) => comment)),
  ];
  return {
    ipv6:
      pod?.ipv6 ?? (rules.length > 0 ? !rules.includes(IPV6_OFF) : routed6 || ours.some(({ family }) => family === 6)),
    dns: dnsOf(pod, names),
    bypassInbound: pod !== undefined && !pod.inbound,
  };
}

function dnsOf(pod: PinnedPod | undefined, names: readonly string[]): Steering["dns"] {
  if (pod !== undefined) return pod.dns ? (pod.dnsListed ? "some" : "any") : "none";
  const told = names.flatMap((name) => /^dns-(?:udp|tcp)(?:-(.+))?$/.exec(name)?.slice(1) ?? []);
  if (names.some((name) => name === "dns-udp" || name === "dns-tcp")) return "any";
  const servers = [...new Set(told)];
  // nf_tables keeps each family's in a set of its own.
  if (servers.some((server) => server === "v4" || server === "v6")) return "some";
  return servers.length === 0 ? "none" : servers;
}

/** Rows that are not tried, because nobody here knows what they should show. */
export function untried({ ipv6, dns }: Steering, hasIpv6: boolean): readonly ProofReport[] {
  const skipped = (row: string, family: 4 | 6, evidence: string): ProofReport => {
    return { row, family, result: "skipped", evidence, milliseconds: 0 };
  };
  const rows: ProofReport[] = [];
  if (hasIpv6 && !ipv6) {
    const evidence = "nothing in its netns captures IPv6; whether it should be, only the agent knows";
    for (const row of ["outbound", "inbound"]) rows.push(skipped(row, 6, evidence));
  }
  if (dns !== "none" && dns !== "some") return rows;
  const evidence =
    dns === "none"
      ? "nothing in its netns captures DNS; whether it should be, only the agent knows"
      : "only questions to its own nameservers are captured, and only the agent knows them";
  for (const row of ["dns-tcp", "dns-udp"]) rows.push(skipped(row, 4, evidence));
  return rows;
}
