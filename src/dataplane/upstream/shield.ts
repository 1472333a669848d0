// SPDX-License-Identifier: Apache-2.0
// Keeps upstream's redirecting rules off connections that are none of theirs: those of the eBPF engine, whose
// new ones they would turn to where nobody asks for them, and those that are older than the rules, which
// conntrack takes for new in mid-stream and which redirected are reset. Both translate such a connection to
// what it is already, after which no other rule of table nat is asked. Harmless to what is new, and to a pod
// without upstream's rules.
import type { AddressFamily } from "../../native/binding.ts";
import { restore } from "../iptables/restore.ts";
import { CAPTURE } from "../iptables/ruleset.ts";
import { EBPF_RANGES } from "../netfilter/numbers.ts";
import { nft } from "../nftables/nft.ts";
import { replaceText } from "../nftables/text.ts";
import { SHIELD_CHAIN, SHIELD_TABLE } from "./names.ts";
import type { ChainTraces } from "./traces.ts";

const HOOKS = ["PREROUTING", "OUTPUT"] as const;
/** Before those of upstream (-100), and before ours. */
const PRIORITY = -120;

/** Puts it before everything else in a family's table nat. Idempotent. @throws AgentError as `restore`. */
export async function shieldChains(
  netns: number,
  { variant, family, tables }: Pick<ChainTraces, "variant" | "family" | "tables">,
): Promise<void> {
  if (tables.some(({ name, chains }) => name === "nat" && chains.includes(SHIELD_CHAIN))) return;
  await restore(variant, family, netns, ["*nat", ...shieldLines(family), "COMMIT", ""].join("\n"));
}

/** Lines of table nat for `iptables-restore`, in a netns in which it is not. */
export function shieldLines(family: AddressFamily): string[] {
  return [
    `:${SHIELD_CHAIN} - [0:0]`,
    ...EBPF_RANGES[family].map((range) => `-A ${SHIELD_CHAIN} -d ${range} -j ACCEPT`),
    `-A ${SHIELD_CHAIN} -p tcp -m tcp ! --tcp-flags SYN,ACK SYN -j ACCEPT`,
    ...HOOKS.map((hook) => `-I ${hook} 1 -m comment --comment "${CAPTURE.jumpComment}" -j ${SHIELD_CHAIN}`),
  ];
}

/** For upstream's native nftables form. Idempotent. @throws AgentError as `nft`. */
export async function shieldTables(netns: number): Promise<void> {
  await nft(netns, shieldTableText());
}

/** What `shieldTables` writes, to be committed with other tables. */
export function shieldTableText(): string {
  const rules = [
    `ip daddr { ${EBPF_RANGES[4].join(", ")} } dnat ip to ip daddr`,
    `ip6 daddr { ${EBPF_RANGES[6].join(", ")} } dnat ip6 to ip6 daddr`,
    "meta nfproto ipv4 tcp flags & (syn|ack) != syn dnat ip to ip daddr",
    "meta nfproto ipv6 tcp flags & (syn|ack) != syn dnat ip6 to ip6 daddr",
  ];
  const chains = HOOKS.map((hook) => {
    const name = hook.toLowerCase();
    const head = `type nat hook ${name} priority ${PRIORITY}; policy accept;`;
    return `\tchain ${name} {\n${[head, ...rules].map((line) => `\t\t${line}`).join("\n")}\n\t}\n`;
  });
  return replaceText(SHIELD_TABLE, "ambient-cni", chains.join(""));
}
