// SPDX-License-Identifier: Apache-2.0
// What of the node and the cluster checks are judged by: gathered once each, when the first check asks. A fact that
// can't be seen throws, and whatever was to be judged by it is not known.

import type { PoliciesOfNode } from "../../kube/policy-reader.ts";
import type { ServerTime } from "../../kube/server-time.ts";
import type { TokenLife } from "../../kube/service-account.ts";
import type { ClockState, EffectiveProgram } from "../../native/binding.ts";
import type { CiliumSettings } from "../../sys/cilium.ts";

export interface Conntrack {
  readonly count: number;
  readonly max: number;
}

/** Of a captured pod, by the kernel: the interface that has its addresses. */
export interface PodNetwork {
  readonly uid: string;
  readonly pod: string;
  readonly engine: string | null;
  readonly ifname: string;
  readonly mtu: number;
  /** The node's end of the pair; undefined where there is none. */
  readonly outside: { readonly ifname: string; readonly mtu: number } | undefined;
  /** Effective net.ipv4.conf.IFNAME.rp_filter: 0 off, 1 strict, 2 loose. */
  readonly rpFilter: number;
  /** Packets it has dropped in this netns; undefined: not counted by this kernel. */
  readonly rpDrops: number | undefined;
  /** Programs at connect() of its processes, in their order. undefined: its cgroup was not found. */
  readonly connect: readonly EffectiveProgram[] | undefined;
}

export interface NodeNetwork {
  /** Of the default route. */
  readonly uplink: { readonly ifname: string; readonly mtu: number } | undefined;
  /** net.ipv4.conf.default.rp_filter: what pods begin with. */
  readonly rpFilter: number;
  readonly rpDrops: number | undefined;
  readonly pods: readonly PodNetwork[];
}

/** Programs that run for the cgroup of all pods, wherever they are attached. */
export interface PodsPrograms {
  readonly cgroup: string;
  readonly connect: readonly EffectiveProgram[];
  /** How many of them are attached to this very cgroup, and not above. */
  readonly attachedHere: number;
}

export interface PinnedPods {
  readonly pods: number;
  /** Of no process on the node. */
  readonly stale: number;
}

/** The plugins of the configuration by which pods start, and what else tells whose network it is. */
export interface ClusterNetwork {
  /** Names of the node's. */
  readonly interfaces: readonly string[];
  /** `type` of each plugin; empty without a configuration. */
  readonly types: readonly string[];
  /** Of AWS's plugin: `standard` or `strict`; undefined without it. */
  readonly podSecurityGroups: string | undefined;
  /** `local` or `shared`, as OVN-Kubernetes was started; undefined: it does not run here, or does not say. */
  readonly ovnGateway: string | undefined;
  /** net.ipv4.tcp_early_demux of the node. */
  readonly earlyDemux: boolean;
}

/** A captured pod's address that the CNI of AWS leads through a table of the pod's own (a branch ENI). */
export interface BranchAddress {
  readonly pod: string;
  readonly ip: string;
  /** Both rules are there that keep probes of it on the node. */
  readonly ruled: boolean;
}

export interface AgentCredentials {
  /** undefined: a token that says nothing about itself. */
  readonly token: TokenLife | undefined;
  /** When the last authority ends, in ms. */
  readonly authorityEnd: number | undefined;
}

export interface Facts {
  /** Of the machine that runs this. */
  now(): number;
  /** undefined where the node tracks no connections. */
  conntrack(): Conntrack | undefined;
  clock(): ClockState;
  serverTime(): Promise<ServerTime>;
  podsPrograms(): PodsPrograms;
  network(): Promise<NodeNetwork>;
  /** Names of the tables in a netns (`dev:ino`) that are not ours; undefined: no process of the node lives there. */
  foreignRules(netns: string): Promise<readonly string[] | undefined>;
  clusterNetwork(): Promise<ClusterNetwork>;
  branchAddresses(): Promise<readonly BranchAddress[]>;
  /** undefined: its agent has written nothing down on this node. */
  cilium(): Promise<CiliumSettings | undefined>;
  /** A sentence instead: why what is pinned can't be read. */
  pinned(): Promise<PinnedPods | string>;
  credentials(): Promise<AgentCredentials>;
  policies(): Promise<PoliciesOfNode>;
}
