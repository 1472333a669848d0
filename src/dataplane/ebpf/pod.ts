// SPDX-License-Identifier: Apache-2.0
// From what must be true of a pod's traffic to what the programs are told about it. Pure.
import { createHash } from "node:crypto";
import { familyOf } from "../../core/ip.ts";
import type { CaptureSpec } from "../../core/ports/dataplane.ts";
import type { BpfPod, BpfPodLists } from "../../native/bpf.ts";
import type { PlanMode } from "../netfilter/mode.ts";
import { address, addresses, cidrs } from "../netfilter/values.ts";

/** Raised when an agent of an older version can't tell any more what a newer one wrote. */
const PLAN_VERSION = 1;

/** What only the pod's netns can say. */
export interface PodFacts {
  /** Canonical, one per family at most; "" for none. */
  readonly shadow4: string;
  readonly shadow6: string;
  /** Addresses of its interfaces that are not pod IPs: link-local ones. */
  readonly locals: readonly string[];
  readonly sysctls: string;
  /** Connections of another engine's go on in it. */
  readonly beside: boolean;
}

type Told = Omit<
  BpfPod & BpfPodLists,
  "shadow4" | "shadow6" | "locals" | "sysctls" | "beside" | "draining" | "retiring"
>;

/** What a spec alone says; a pod keeps its spec for life. */
const told = new WeakMap<CaptureSpec, Told>();

/** What the programs are told. @throws AgentError BAD_ADDRESS that names the value. */
export function planPod(spec: CaptureSpec, facts: PodFacts, mode: PlanMode): BpfPod & BpfPodLists {
  const known = told.get(spec) ?? planSpec(spec);
  told.set(spec, known);
  // Nobody asks a retiring pod's lists, and to give them up there is always room.
  const lists = mode === "retiring" ? { nameservers: [], excludes: [] } : {};
  return { ...known, ...lists, ...facts, draining: mode === "draining", retiring: mode === "retiring" };
}

function planSpec(spec: CaptureSpec): Told {
  return {
    ip4: ipOf(spec, 4),
    ip6: ipOf(spec, 6),
    probe4: address(spec.probeIpv4, 4),
    probe6: address(spec.probeIpv6, 6),
    ipv6: spec.ipv6,
    inbound: !spec.bypassInbound,
    dns: spec.dnsCapture,
    dnsListed: spec.dnsCapture && spec.dnsServers !== undefined,
    plan: planHash(spec),
    nameservers: spec.dnsServers === undefined ? [] : both((family) => addresses(spec.dnsServers ?? [], family)),
    excludes: both((family) => cidrs(spec.excludeOutboundCidrs, family)),
  };
}

/** The pod's address of one family, "" for none. */
export function ipOf(spec: CaptureSpec, family: 4 | 6): string {
  return spec.ips.find((ip) => familyOf(ip) === family) ?? "";
}

/** The plan as text that can be reviewed and compared. */
export function planText(spec: CaptureSpec): string {
  const shadow6 = spec.ipv6 ? "<shadow>" : "";
  const none: PodFacts = { shadow4: "<shadow>", shadow6, locals: [], sysctls: "", beside: false };
  const { plan, sysctls, beside, draining, retiring, ...rest } = planPod(spec, none, "captured");
  return entryText(rest);
}

/** What the programs are told, as text: a line per field. */
export function entryText(entry: object): string {
  return Object.entries(entry)
    .map(([key, value]) => `${key} ${Array.isArray(value) ? value.join(", ") : String(value)}`.trimEnd())
    .join("\n");
}

function planHash(spec: CaptureSpec): string {
  const { uid, pod, ...rest } = spec;
  return createHash("sha256")
    .update(`${PLAN_VERSION} ${JSON.stringify(rest)}`)
    .digest("hex")
    .slice(0, 16);
}

function both(of: (family: 4 | 6) => string[]): string[] {
  return [...of(4), ...of(6)];
}

/** What the entry of a pod says of itself. */
export function modeOf(pod: Pick<BpfPod, "retiring" | "draining">): PlanMode {
  return pod.retiring ? "retiring" : pod.draining ? "draining" : "captured";
}
