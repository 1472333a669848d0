// SPDX-License-Identifier: Apache-2.0
// The redirection of a pod's traffic into its sidecar, as an ordered description: src/sidecar makes it, the
// writers in src/dataplane/sidecar make rules of it.
import type { Family } from "./ip.ts";

/** What a packet must be; every condition that is there must hold, and of a list one is enough. */
export interface RedirectionMatch {
  /** Only in this family; undefined: in each that the pod has. */
  readonly family?: Family;
  readonly protocol?: "tcp" | "udp";
  /** Interfaces it has come by, or leaves by. */
  readonly from?: readonly string[];
  readonly to?: readonly string[];
  /** Canonical CIDRs. */
  readonly source?: string;
  readonly destinations?: readonly string[];
  readonly notDestination?: string;
  readonly ports?: readonly number[];
  readonly notPorts?: readonly number[];
  readonly sourcePort?: number;
  /** Owner of the socket that sent it: fsuid and fsgid of whoever opened it. */
  readonly uid?: number;
  readonly notUid?: number;
  readonly gid?: number;
  readonly notGids?: readonly number[];
  readonly mark?: number;
  readonly notMark?: number;
  readonly connectionMark?: number;
  readonly state?: "invalid" | "established";
}

/** What happens to it. `mark` goes on with the next rule, everything else decides in this hook. */
export type RedirectionAction =
  | { readonly kind: "leave" }
  | { readonly kind: "drop" }
  /** Destination becomes this port of the netns itself; undefined: only the address changes. */
  | { readonly kind: "redirect"; readonly port: number | undefined }
  /** Goes to the transparent listener on this port (undefined: of its own port, on loopback), unchanged, marked. */
  | { readonly kind: "tproxy"; readonly port: number | undefined; readonly mark: number }
  /** Marked and left, for the policy rule to deliver it locally. */
  | { readonly kind: "divert"; readonly mark: number }
  /** Its connection remembers its mark; then it is left. */
  | { readonly kind: "remember-mark" }
  /** It gets its connection's mark; then it is left. */
  | { readonly kind: "recall-mark" }
  | { readonly kind: "mark"; readonly mark: number }
  | { readonly kind: "zone"; readonly zone: number };

export interface RedirectionRule {
  /** Unique within its hook. */
  readonly name: string;
  readonly match: RedirectionMatch;
  readonly action: RedirectionAction;
}

/** Places where the kernel asks, each with its own list. */
export const REDIRECTION_HOOKS = [
  "raw-prerouting",
  "raw-output",
  "mangle-prerouting",
  "mangle-output",
  "nat-prerouting",
  "nat-output",
] as const;
export type RedirectionHook = (typeof REDIRECTION_HOOKS)[number];

export interface Redirection {
  /** What is redirected; IPv4 is always among them. The rest is left alone. */
  readonly families: readonly Family[];
  /** First match wins. Hooks without rules have an empty list. */
  readonly hooks: Readonly<Record<RedirectionHook, readonly RedirectionRule[]>>;
  /** Packets with this mark are delivered locally, by a rule and a table of their own. */
  readonly deliver: { readonly mark: number; readonly table: number } | undefined;
  /** Addresses that `lo` needs in addition. */
  readonly loopback: readonly string[];
}
