// SPDX-License-Identifier: Apache-2.0
// Facts of a node where all is well; a test changes what it is about.
import type { Facts, NodeNetwork, PodNetwork } from "../../src/cli/check/facts.ts";

export const NOW = Date.parse("2026-01-01T12:00:00Z");
export const HOUR = 3_600_000;
/** Ours, with the name that the kernel keeps of it. */
export const CONNECT = { id: 311, name: "ambient_connect" };

export function podNetwork(changes: Partial<PodNetwork> = {}): PodNetwork {
  return {
    uid: "",
    pod: "shop/web-7f4c",
    engine: "ebpf",
    ifname: "eth0",
    mtu: 1450,
    outside: { ifname: "veth7f4c", mtu: 1450 },
    rpFilter: 1,
    rpDrops: 0,
    connect: [CONNECT],
    ...changes,
  };
}

export function nodeNetwork(pod: Partial<PodNetwork> = {}, changes: Partial<NodeNetwork> = {}): NodeNetwork {
  return {
    uplink: { ifname: "eth0", mtu: 1500 },
    rpFilter: 1,
    rpDrops: 3,
    pods: [podNetwork(pod)],
    ...changes,
  };
}

export type FactValues = { readonly [Name in keyof Facts]: Awaited<ReturnType<Facts[Name]>> };

export const GOOD_FACTS: FactValues = {
  now: NOW,
  conntrack: { count: 900, max: 262_144 },
  clock: { synchronised: true, maxErrorMs: 12 },
  serverTime: { aheadMs: 200, uncertaintyMs: 510, untrusted: undefined },
  podsPrograms: { cgroup: "/sys/fs/cgroup/kubepods.slice", connect: [CONNECT], attachedHere: 1 },
  network: nodeNetwork(),
  foreignRules: undefined,
  clusterNetwork: {
    interfaces: ["lo", "eth0", "veth7f4c"],
    types: ["bridge", "istio-cni"],
    podSecurityGroups: undefined,
    ovnGateway: undefined,
    earlyDemux: true,
  },
  branchAddresses: [],
  cilium: undefined,
  pinned: { pods: 12, stale: 0 },
  credentials: {
    token: { expiresAt: NOW + 24 * HOUR, renewBy: NOW + HOUR },
    authorityEnd: NOW + 3650 * 24 * HOUR,
  },
  policies: { policies: [], pods: [], more: false },
};

/** An Error in place of a value: it can't be seen. */
export function factsOf(values: { readonly [Name in keyof FactValues]: FactValues[Name] | Error }): Facts {
  const now = <Name extends keyof FactValues>(name: Name): FactValues[Name] => {
    const value = values[name];
    if (value instanceof Error) throw value;
    // What is no Error is the value.
    return value as FactValues[Name];
  };
  const later = async <Name extends keyof FactValues>(name: Name) => now(name);
  return {
    now: () => now("now"),
    conntrack: () => now("conntrack"),
    clock: () => now("clock"),
    serverTime: () => later("serverTime"),
    podsPrograms: () => now("podsPrograms"),
    network: () => later("network"),
    foreignRules: () => later("foreignRules"),
    clusterNetwork: () => later("clusterNetwork"),
    branchAddresses: () => later("branchAddresses"),
    cilium: () => later("cilium"),
    pinned: () => later("pinned"),
    credentials: () => later("credentials"),
    policies: () => later("policies"),
  };
}
