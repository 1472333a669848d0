// SPDX-License-Identifier: Apache-2.0
// The host's table: sockets of this node that connect to an enrolled pod wear the probe address, which
// the pod's table lets pass. Pure.
import { HOST_TABLE } from "../../core/constants.ts";
import { AgentError } from "../../core/errors.ts";
import { type Family, familyOf } from "../../core/ip.ts";
import { textHash } from "../netfilter/text-hash.ts";
import { address } from "../netfilter/values.ts";
import type { Ruleset } from "../nftables/ruleset.ts";
import { bodyText, replaceText } from "../nftables/text.ts";

export interface ProbePlanOptions {
  /** Whose sockets: one uid, or undefined for every socket of the node. */
  readonly uid: number | undefined;
  readonly ipv4: string;
  readonly ipv6: string;
}

/** Owner of each exempt address. */
export type Owners = ReadonlyMap<string, string>;

export const SET_OF: Readonly<Record<Family, string>> = { 4: "pods-v4", 6: "pods-v6" };

/** One before the `srcnat` (100) of other CNIs: who translates first decides (istio#56414). */
const PRIORITY = 99;
const UID = /^[A-Za-z0-9._-]{1,63}$/;

/**
 * `meta skuid` reads the owner of the sending socket and fails on packets that only pass through the
 * node, so `>= 0` says "a socket of this node": nft's way to iptables' `--socket-exists`.
 */
export function planProbes(options: ProbePlanOptions): Ruleset {
  const whose = options.uid === undefined ? "meta skuid >= 0" : `meta skuid ${options.uid}`;
  return {
    sets: [
      { name: SET_OF[4], text: "type ipv4_addr; flags timeout" },
      { name: SET_OF[6], text: "type ipv6_addr; flags timeout" },
    ],
    chains: [
      {
        name: "postrouting",
        hook: { type: "nat", hook: "postrouting", priority: PRIORITY },
        rules: [
          {
            name: "probe-v4",
            text: `meta l4proto tcp ip daddr @${SET_OF[4]} ${whose} counter snat ip to ${address(options.ipv4, 4)}`,
          },
          {
            name: "probe-v6",
            text: `meta l4proto tcp ip6 daddr @${SET_OF[6]} ${whose} counter snat ip6 to ${address(options.ipv6, 6)}`,
          },
        ],
      },
    ],
  };
}

/** The comment by which a table is known to be the planned one. */
export function probesComment(plan: Ruleset): string {
  return `ambient-cni v1 plan=${textHash(bodyText(plan))}`;
}

/** One transaction that puts the whole table in place, elements included; `ending`: seconds until one is gone. */
export function tableText(plan: Ruleset, owners: Owners, ending: ReadonlyMap<string, number> = new Map()): string {
  const elements = new Map<string, string[]>([
    [SET_OF[4], []],
    [SET_OF[6], []],
  ]);
  for (const [ip, uid] of owners) elements.get(SET_OF[familyOf(ip)])?.push(element(ip, uid, ending.get(ip)));
  return replaceText(HOST_TABLE, probesComment(plan), bodyText(plan, elements));
}

/** One transaction that leads from `present` to `wanted`; "" when they agree. Others' addresses are not named. */
export function changeText(present: Owners, wanted: ReadonlyMap<string, string | undefined>): string {
  const lines: string[] = [];
  for (const [ip, uid] of wanted) {
    const now = present.get(ip);
    if (now === uid) continue;
    const set = `inet ${HOST_TABLE} ${SET_OF[familyOf(ip)]}`;
    // `add` of a known key keeps the old comment: a new owner needs both, in one transaction.
    if (now !== undefined) lines.push(`delete element ${set} { ${ip} }`);
    if (uid !== undefined) lines.push(`add element ${set} { ${element(ip, uid)} }`);
  }
  return lines.length === 0 ? "" : `${lines.join("\n")}\n`;
}

/** A pod uid that can stand in a comment. @throws AgentError BAD_UID that names it. */
export function checkedUid(uid: string): string {
  if (!UID.test(uid)) throw new AgentError("BAD_UID", `not a pod uid: ${JSON.stringify(uid.slice(0, 80))}`);
  return uid;
}

function element(ip: string, uid: string, seconds?: number): string {
  return `${ip}${seconds === undefined ? "" : ` timeout ${seconds}s`} comment "${uid}"`;
}
