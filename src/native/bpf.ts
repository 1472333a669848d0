// SPDX-License-Identifier: Apache-2.0
// The BPF side of the addon. Layouts of maps and events belong to bpf/abi.h; here are only their values.

/** Values of src/core/constants.ts that the programs get before they are loaded. */
export interface BpfKnobs {
  readonly ztunnelMark: number;
  readonly localMark: number;
  readonly markMask: number;
  readonly verifyMark: number;
  readonly outboundPort: number;
  readonly inboundPort: number;
  readonly hbonePort: number;
  readonly dnsPort: number;
  /** CIDRs. */
  readonly shadow4: string;
  readonly shadow6: string;
  /** CIDRs of 16 bits for hosts. */
  readonly spread4: string;
  readonly spread6: string;
}

/** What the programs know about one pod. Empty addresses: none of this family. */
export interface BpfPod {
  readonly ip4: string;
  readonly ip6: string;
  readonly shadow4: string;
  readonly shadow6: string;
  readonly probe4: string;
  readonly probe6: string;
  readonly ipv6: boolean;
  readonly inbound: boolean;
  readonly dns: boolean;
  readonly dnsListed: boolean;
  readonly draining: boolean;
  readonly retiring: boolean;
  /** Connections of another engine's go on in the netns. */
  readonly beside: boolean;
  /** At most 12 characters. */
  readonly sysctls: string;
  /** At most 16 characters. */
  readonly plan: string;
}

/** A pod in the map of an agent that may be gone. */
export interface PinnedPod extends BpfPod {
  readonly cookie: bigint;
  /** By verdict, summed over CPUs. */
  readonly counters: Readonly<Record<string, number>>;
}

export interface BpfVersions {
  readonly libbpf: string;
  /** Layouts of maps. */
  readonly schema: number;
  /** Name of the programs with these knobs. */
  readonly generation: string;
}

export interface BpfPodLists {
  /** Addresses of the pod's own besides its IPs. */
  readonly locals: readonly string[];
  readonly nameservers: readonly string[];
  /** CIDRs. */
  readonly excludes: readonly string[];
}

export interface BpfLink {
  /** Kernel id. */
  readonly program: number;
  /** cgroup id or netns inode; 0n once that is gone. */
  readonly target: bigint;
}

/** First packet of a flow and what was decided about it. */
export interface BpfFlow {
  /** CLOCK_MONOTONIC. */
  readonly nanoseconds: bigint;
  readonly cookie: bigint;
  readonly verdict: string;
  readonly protocol: "tcp" | "udp";
  readonly source: string;
  readonly sourcePort: number;
  readonly destination: string;
  readonly destinationPort: number;
}

/** One reader at a time: what one has read the next does not get. */
export interface BpfEvents {
  /** The oldest, at most `most`; the rest stay in the ring. None after close. */
  read(most: number): BpfFlow[];
  close(): void;
}

/**
 * Programs and maps below one directory of a bpffs. Pins are paths relative to it, without dots, but
 * for a leading `../` to the directory of another schema. Every
 * call throws EBADF after close; closing changes nothing in the kernel.
 */
export interface BpfNode {
  /** Names the programs: equal ones have equal generations. */
  readonly generation: string;
  /** Kernel ids. */
  readonly programs: Readonly<Record<string, number>>;
  /** Programs that this kernel refused, and why. */
  readonly refused: Readonly<Record<string, string>>;

  /** Pinned link to a cgroup: kept, updated in place, or made. Throws ENOENT for a refused program. */
  linkCgroup(program: string, cgroup: string, pin: string): void;
  /** A link to a cgroup that ends with the returned fd, which the caller owns. */
  holdCgroup(program: string, cgroup: string): number;
  linkNetns(program: string, netns: number, pin: string): void;
  link(pin: string): BpfLink | undefined;
  /** Removes a pin, or a directory of pins. Idempotent. */
  unpin(pin: string): void;
  /** Names of the pins in a directory; none when it does not exist. */
  pins(directory: string): string[];

  /** Our place among the TC filters of an interface; replaced in one step. */
  tcAttach(netns: number, ifindex: number, direction: "ingress" | "egress", program: string): void;

  /** From here on the pod is captured; what its lists held before goes. */
  podWrite(cookie: bigint, pod: BpfPod & BpfPodLists): void;
  /** Only what `pod` says as booleans is written. Throws ENOENT. */
  podFlags(cookie: bigint, pod: BpfPod & BpfPodLists): void;
  podRead(cookie: bigint): BpfPod | undefined;
  /** Names of what differs from `pod`. */
  podDifferences(cookie: bigint, pod: BpfPod & BpfPodLists): string[];
  /** Also what a writer that was killed has left of it. Idempotent. */
  podDelete(cookie: bigint): void;
  podCookies(): bigint[];
  /** Deletes an entry from a pinned map of another schema, whose key is the netns cookie. Idempotent. */
  erase(pin: string, cookie: bigint): void;
  /** By verdict, summed over CPUs. */
  counters(cookie: bigint): Readonly<Record<string, number>>;

  /** True when connections to this port of ztunnel's can be steered to a listener. */
  hasListener(cookie: bigint, port: number): boolean;
  /** Enters listeners of these cgroups (exact ids) that are open in the netns. */
  adoptListeners(netns: number, cgroups: readonly bigint[]): void;
  stateRead(): { readonly newestSlot: 0 | 1 };
  /** What is not named stays. */
  stateWrite(state: {
    readonly hostCookie?: bigint;
    readonly newestSlot?: 0 | 1;
    readonly ztunnelByCgroup?: 0 | 1;
    readonly probers?: 0 | 1 | 2;
  }): void;
  /** Ids of the cgroups of ztunnels' pods, at most 16; they replace the ones before. */
  ztunnelsWrite(cgroups: readonly bigint[]): void;
  /** The programs tell events until this time (CLOCK_MONOTONIC, ns); 0n: no more. */
  tellUntil(nanoseconds: bigint): void;
  /** Opens the ring of events. */
  events(): BpfEvents;
  /** Events that found the ring full, since the maps were made. */
  eventsLost(): number;
  close(): void;
}
