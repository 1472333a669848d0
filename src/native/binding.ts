// SPDX-License-Identifier: Apache-2.0
// The typed face of the addon. Everything is synchronous unless it returns a Promise or takes a
// callback. Failures throw NativeError (fault.ts): Error with `code` (EPERM), `errno`, `syscall`.
// `netns` arguments are open netns fds; null means the netns of the process. No call keeps or closes
// an fd it was given; every returned fd is fresh and close-on-exec.

import type { BpfKnobs, BpfNode, BpfVersions, PinnedPod } from "./bpf.ts";

export type NetnsArg = number | null;
export type AddressFamily = 4 | 6;

export interface Link {
  readonly index: number;
  readonly name: string;
  /** IFLA_INFO_KIND: "veth", "bridge", ... ; "" for a plain device. */
  readonly kind: string;
  readonly up: boolean;
  readonly loopback: boolean;
  readonly mtu: number;
  readonly mac: string;
  /** IFLA_LINK: of a veth end, the index of the other one, in its netns; 0 for none. */
  readonly peer: number;
}

export interface Address {
  readonly ifindex: number;
  readonly family: AddressFamily;
  readonly address: string;
  readonly prefix: number;
  /** "global" | "link" | "host" | "site" | number as text. */
  readonly scope: string;
}

export interface Route {
  readonly family: AddressFamily;
  readonly table: number;
  /** "unicast" | "local" | "blackhole" | ... */
  readonly type: string;
  readonly scope: string;
  readonly dst: string;
  readonly prefix: number;
  readonly oif: number;
  readonly gateway: string;
  readonly src: string;
  readonly priority: number;
}

export interface Rule {
  readonly family: AddressFamily;
  readonly priority: number;
  readonly table: number;
  readonly fwmark: number;
  readonly fwmask: number;
  readonly iif: string;
  readonly to: string;
  readonly toPrefix: number;
}

export interface RouteSpec {
  readonly family: AddressFamily;
  readonly table: number;
  readonly type: "unicast" | "local";
  readonly dst: string;
  readonly prefix: number;
  readonly oif: number;
  readonly gateway?: string;
  readonly src?: string;
  readonly scope?: "global" | "link" | "host";
}

export interface RuleSpec {
  readonly family: AddressFamily;
  readonly priority: number;
  readonly table: number;
  readonly fwmark?: number;
  readonly fwmask?: number;
  readonly iif?: string;
  readonly to?: string;
  readonly toPrefix?: number;
}

export interface SocketInfo {
  readonly family: AddressFamily;
  readonly protocol: "tcp" | "udp";
  /** Kernel state number: 1 ESTABLISHED ... 10 LISTEN. */
  readonly state: number;
  readonly src: string;
  readonly srcPort: number;
  readonly dst: string;
  readonly dstPort: number;
  readonly uid: number;
  readonly inode: number;
  readonly mark: number;
  /** Bytes that wait to be read; of a TCP listener, connections that wait to be accepted. */
  readonly queued: number;
  /** cgroup v2 id (INET_DIAG_CGROUP_ID), 0n when the kernel does not say. */
  readonly cgroupId: bigint;
  /** Tells this socket from a later one with the same addresses and ports. */
  readonly cookie: bigint;
}

export interface SynFrame {
  readonly family: AddressFamily;
  readonly ifindex: number;
  readonly srcMac: string;
  readonly dstMac: string;
  readonly src: string;
  readonly srcPort: number;
  readonly dst: string;
  readonly dstPort: number;
}

export interface SocketOptions {
  readonly family: AddressFamily;
  readonly bind?: { readonly address: string; readonly port: number };
  readonly mark?: number;
  readonly transparent?: boolean;
  readonly freebind?: boolean;
  readonly reusePort?: boolean;
  readonly reuseAddress?: boolean;
  readonly v6Only?: boolean;
  readonly device?: string;
}

export interface ListenOptions extends SocketOptions {
  readonly backlog?: number;
}

export interface ConnectOptions extends SocketOptions {
  readonly address: string;
  readonly port: number;
  /** ms; rejects with ETIMEDOUT. */
  readonly timeout: number;
}

export interface Endpoint {
  readonly address: string;
  readonly port: number;
}

export interface ConnectionTuple {
  readonly src: string;
  readonly srcPort: number;
  readonly dst: string;
  readonly dstPort: number;
}

export interface NftTable {
  readonly comment: string;
  /** Its hooks are off: everything is listed, nothing is in force. */
  readonly dormant: boolean;
  readonly chains: readonly NftChain[];
  readonly rules: readonly NftRule[];
  readonly sets: readonly string[];
}

export interface NftChain {
  readonly name: string;
  /** "" for a regular chain. */
  readonly type: string;
  /** NF_INET_* hook number, -1 for a regular chain. */
  readonly hook: number;
  readonly priority: number;
  /** "accept" or "drop"; "" for a regular chain. */
  readonly policy: string;
}

export interface NftChainName {
  /** "inet", "ip", "ip6", ... */
  readonly family: string;
  readonly table: string;
  readonly name: string;
}

export interface NftRule {
  readonly chain: string;
  readonly handle: bigint;
  /** nft's, or that of iptables-nft. */
  readonly comment: string;
  /** The chain it jumps or goes to, "" for another verdict or none. */
  readonly jump: string;
  /** Hex digest of the expressions without handles and counter values: equal rules, equal digest. */
  readonly digest: string;
  readonly packets: bigint;
  readonly bytes: bigint;
}

/** To be deleted: a table with all that is in it, a chain, what is in it, or one rule of it. */
export type NftObject = { readonly family: string; readonly table: string } & (
  | { readonly what: "table" }
  | { readonly what: "chain" | "rules"; readonly chain: string }
  | { readonly what: "rule"; readonly chain: string; readonly handle: bigint }
);

export interface NftElement {
  /** Canonical address for ipv4_addr/ipv6_addr keys, else hex. In an interval set "first-last" unless they are one. */
  readonly key: string;
  readonly comment: string;
}

/** A table of legacy iptables. */
export interface XtTable {
  /** "raw", "mangle", "nat", "filter", ... */
  readonly name: string;
  readonly chains: readonly XtChain[];
  /** In the order in which the kernel walks each chain, without policies. */
  readonly rules: readonly XtRule[];
}

export interface XtChain {
  readonly name: string;
  /** "accept" or "drop" of a built-in chain, "" for any other. */
  readonly policy: string;
}

export interface XtRule {
  readonly chain: string;
  readonly comment: string;
  /** The chain it jumps or goes to, "" for another target or none. */
  readonly jump: string;
  /** Hex digest of the rule without counters: equal rules of equal chains, equal digest. */
  readonly digest: string;
  readonly packets: bigint;
}

export interface SpawnOptions {
  /** A name without a slash is looked for in the PATH of `env`. */
  readonly argv: readonly string[];
  /** "NAME=value": all that the program gets. */
  readonly env: readonly string[];
  /** A file in memory, so that `/dev/stdin` works too; without it, /dev/null. */
  readonly stdin?: Buffer;
  /** The program and what it started are killed after this many ms. */
  readonly timeoutMs: number;
  /** Bytes; more ends the program. */
  readonly maxStdout: number;
  /** Bytes; what is kept is the end. */
  readonly maxStderr: number;
}

export interface SpawnResult {
  /** null: ended by a signal. */
  readonly status: number | null;
  readonly signal: number | null;
  /** Why we ended it: "timeout", or "output" for more than `maxStdout`. */
  readonly stopped: "timeout" | "output" | null;
  /** UTF-8; what is none is U+FFFD. */
  readonly stdout: string;
  readonly stderr: string;
}

export interface SeqpacketPeer {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
}

export interface SeqpacketConnection {
  readonly peer: SeqpacketPeer;
  /**
   * One datagram, not empty, with at most one fd attached (duplicated by the kernel; yours stays open).
   * Throws EAGAIN when the peer's queue is full, EPIPE when it is gone, EBADF after close.
   */
  send(message: Buffer, fd?: number): void;
  /** pidfd of the peer (SO_PEERPIDFD, 6.5+), or -1. The caller owns it. */
  peerPidfd(): number;
  close(): void;
}

export interface SeqpacketHandler {
  /** `truncated`: it was larger than 4096 bytes, or fds were lost. Received fds belong to the callee. */
  packet(message: Buffer, fds: number[], truncated: boolean): void;
  /** End of file (also an empty datagram) or a read error; called once, the connection is closed already. */
  end(error: Error | undefined): void;
}

export interface SeqpacketServer {
  close(): void;
}

export interface ClockState {
  /** False: no program keeps it in time (STA_UNSYNC), or not one that tells the kernel. */
  readonly synchronised: boolean;
  /** How far off it may be at most, in ms; grows while nobody keeps it. */
  readonly maxErrorMs: number;
}

export interface EffectiveProgram {
  /** Kernel id. */
  readonly id: number;
  /** At most 15 characters; "" for none. */
  readonly name: string;
}

export interface NativeBinding {
  readonly abiVersion: number;
  /** Injects the class of every error thrown from now on; called once, by load.ts. */
  setErrorClass(errorClass: new (message: string, code: string, errno: number, syscall: string) => Error): void;

  // -- fds and network namespaces
  close(fd: number): void;
  /** open(2) with O_CLOEXEC of a path that must be a network namespace. */
  netnsOpen(path: string): number;
  /** A new, empty, anonymous netns with lo up. */
  netnsCreate(): number;
  netnsIdentify(netns: number): { readonly dev: bigint; readonly ino: bigint };
  /** SO_NETNS_COOKIE (5.14+): unique for the life of the system. */
  netnsCookie(netns: NetnsArg): bigint;
  /** Count of open fds per kind, for the leak check of the tests. */
  openFds(): number;

  // -- rtnetlink
  links(netns: NetnsArg): Link[];
  addresses(netns: NetnsArg): Address[];
  routes(netns: NetnsArg, family: AddressFamily, table: number): Route[];
  rules(netns: NetnsArg, family: AddressFamily): Rule[];
  /** Creates a veth pair; the peer end is placed in `peerNetns`. */
  vethAdd(netns: NetnsArg, name: string, peerName: string, peerNetns: number): void;
  /** On return it transmits, and so does the other end of a veth pair if that was up already. */
  linkUp(netns: NetnsArg, name: string): void;
  linkDelete(netns: NetnsArg, name: string): void;
  /** Adds an address (IPv6 with IFA_F_NODAD). */
  addressAdd(netns: NetnsArg, ifname: string, address: string, prefix: number): void;
  addressDelete(netns: NetnsArg, ifname: string, address: string, prefix: number): void;
  /** NLM_F_CREATE|NLM_F_REPLACE, one after the other; the first that fails ends it. */
  routeReplace(netns: NetnsArg, routes: RouteSpec | readonly RouteSpec[]): void;
  /** Whatever protocol made it. Throws ESRCH when there is no such route. */
  routeDelete(netns: NetnsArg, route: RouteSpec): void;
  /** NLM_F_EXCL: throws EEXIST when an equal rule exists. */
  ruleAdd(netns: NetnsArg, rule: RuleSpec): void;
  /** Throws ENOENT when there is no such rule. */
  ruleDelete(netns: NetnsArg, rule: RuleSpec): void;
  /**
   * Calls back on any link, address, route, rule or TC filter change in the netns, until stopped. Changes that
   * come together are told once per kind.
   */
  routeWatch(netns: NetnsArg, changed: (what: "link" | "address" | "route" | "rule" | "filter") => void): () => void;

  // -- sysctl, key as a path below /proc/sys/net: "net/ipv4/tcp_fwmark_accept"
  sysctlGet(netns: NetnsArg, key: string): string;
  /**
   * Directly; where /proc/sys is read-only, through another mount of proc that only the addon has, and
   * where that is refused, from a thread with its own mount namespace in which /proc/sys is remounted
   * writable. Returns the value before; an equal one is not written. Throws EROFS or EPERM when that is
   * refused too, saying so.
   */
  sysctlSet(netns: NetnsArg, key: string, value: string): string;

  /**
   * Mounts a bpffs at /sys/fs/bpf of a mount namespace (`/proc/1/ns/mnt`). False: there was one already.
   * Throws EPERM without CAP_SYS_ADMIN and CAP_SYS_CHROOT.
   */
  mountBpffs(mountNamespace: string): boolean;
  /** A bpffs that is mounted nowhere, reached through its fd and gone with it (5.2+). */
  bpffsCreate(): number;

  // -- sockets made inside a netns
  tcpListen(netns: NetnsArg, options: ListenOptions): number;
  /** The next connection that waits at a listener, or -1 when none does. */
  tcpAccept(listener: number): number;
  tcpConnect(netns: NetnsArg, options: ConnectOptions): Promise<number>;
  udpSocket(netns: NetnsArg, options: SocketOptions): number;
  /** SO_ORIGINAL_DST (SOL_IP, then SOL_IPV6), as ztunnel asks; undefined when neither answers. */
  originalDestination(fd: number): Endpoint | undefined;
  localEndpoint(fd: number): Endpoint;
  remoteEndpoint(fd: number): Endpoint;
  socketMark(fd: number): number;
  /** For `synSend`, in a netns. Closing it waits for an RCU grace period (packet_release): about 16 ms. */
  synSocket(netns: NetnsArg): number;
  /** Sends one SYN as a frame of its own out of an interface, past the interface's filters. */
  synSend(socket: number, syn: SynFrame): void;

  // -- sock_diag
  sockets(
    netns: NetnsArg,
    filter: { readonly protocol: "tcp" | "udp"; readonly states?: readonly number[] },
  ): SocketInfo[];
  /**
   * Ends a TCP connection at once (SOCK_DESTROY): its peer gets a reset, its owner ECONNABORTED. False when
   * that very socket is gone. Throws EOPNOTSUPP on a kernel without INET_DIAG_DESTROY.
   */
  socketDestroy(netns: NetnsArg, socket: SocketInfo): boolean;

  // -- nf_tables (NETLINK_NETFILTER; no fork)
  /** Names of all tables as "family name", e.g. "inet ambient-cni". */
  nftTables(netns: NetnsArg): string[];
  /** Every chain of every table: one dump, however many rules there are. */
  nftChains(netns: NetnsArg): NftChainName[];
  /** undefined when the table does not exist. `family`: "inet" | "ip" | "ip6". */
  nftTable(netns: NetnsArg, family: string, name: string): NftTable | undefined;
  nftSet(netns: NetnsArg, family: string, table: string, set: string): NftElement[];
  /**
   * Deletes them in this order, at most 200, all or nothing, in one transaction. Rejects with ENOENT when one is not there, EBUSY
   * when a rule that stays leads to a chain. Works on a thread: until what was deleted is freed some 10 ms pass.
   */
  nftDelete(netns: NetnsArg, objects: readonly NftObject[]): Promise<void>;
  /** Calls back after committed nf_tables transactions in the netns, until stopped; several may be told as one. */
  nftWatch(netns: NetnsArg, changed: () => void): () => void;

  // -- legacy iptables, read only (getsockopt; no fork)
  /** Tables that exist in the netns: reading makes none, as asking iptables would. */
  xtables(netns: NetnsArg, family: AddressFamily): XtTable[];
  /** False when there is no such set. Throws EBUSY while a rule uses it. */
  ipsetDestroy(netns: NetnsArg, name: string): boolean;

  // -- conntrack (NETLINK_NETFILTER; no fork)
  /**
   * Who answers each of some TCP connections that `src` opened to `dst` in this netns: another than `dst` if it was
   * translated, undefined if it is not tracked. Throws EINVAL on a kernel without nf_conntrack_netlink.
   */
  conntrackReplies(netns: NetnsArg, connections: readonly ConnectionTuple[]): (Endpoint | undefined)[];

  // -- programs
  /**
   * Runs a program to its end, in the netns, in a session of its own, in "/", with no fd but 0 to 2.
   * Started as by vfork: nothing of this process is copied, so it costs the same for a large one.
   * Rejects with syscall `setns` when the netns can't be entered, `execve` when the program can't run.
   */
  spawn(netns: NetnsArg, options: SpawnOptions): Promise<SpawnResult>;
  /** This thread, and what it starts, is in the netns from here on, and never leaves it: for a command, not for the agent. */
  enterNetns(netns: number): void;
  /** chroot(2) of this process for good. Throws EPERM without CAP_SYS_CHROOT. */
  enterRoot(root: string): void;

  // -- clock
  /** How the kernel's clock is kept (adjtimex). Throws EPERM where a seccomp profile refuses the question. */
  clockState(): ClockState;

  // -- files: renameat2(2), with EINVAL where the file system can't
  /** They take each other's places. */
  fileExchange(one: string, other: string): void;
  /** Throws EEXIST instead of replacing what is at `to`. */
  fileMove(from: string, to: string): void;

  // -- BPF
  /**
   * Opens what is pinned in `dir` (made if missing), loads what is not: some 150 ms then, 1 ms else.
   * Throws ENODEV when it is not on a bpffs.
   */
  bpfOpen(dir: string, knobs: BpfKnobs): BpfNode;
  /** Loads an object without keeping it; why programs were refused, by name. */
  bpfVerify(object: Buffer): Readonly<Record<string, string>>;
  /** Removes a directory of a bpffs with all pins in it. Idempotent. */
  bpfRemove(dir: string): void;
  /** Pods in the maps pinned below a directory, opened for reading; none when it does not exist. Throws EINVAL for another layout. */
  bpfPinned(dir: string): PinnedPod[];
  bpfVersions(knobs: BpfKnobs): BpfVersions;
  /** True when an sk_lookup program is attached to the netns, whoever pinned its link and where. */
  bpfNetnsLinked(netns: number): boolean;
  /** Kernel ids of the programs at our place among the TC filters of an interface, 0 for nothing. */
  bpfFilterState(netns: number, ifindex: number): { readonly ingress: number; readonly egress: number };
  /** Removes our filters, and the clsact qdisc when nobody else has a filter on it. Idempotent. */
  bpfFilterDetach(netns: number, ifindex: number): void;
  /** Attach flags (BPF_F_ALLOW_OVERRIDE = 1, BPF_F_ALLOW_MULTI = 2) and count of what is attached to a cgroup itself. */
  bpfCgroupFlags(cgroup: string, program: string): { readonly flags: number; readonly count: number };
  /**
   * Programs of everybody's that the kernel runs for a cgroup at the place of one of ours, first that which
   * runs first, wherever they are attached.
   */
  bpfCgroupPrograms(cgroup: string, program: string): EffectiveProgram[];

  // -- SEQPACKET
  /**
   * The socket file has exactly `mode`, whatever the umask. A file in the way is an error (EADDRINUSE)
   * and the file is never removed: both are the caller's business. Paths have at most 107 bytes.
   */
  seqpacketListen(
    path: string,
    mode: number,
    accepted: (connection: SeqpacketConnection) => SeqpacketHandler,
  ): SeqpacketServer;
  seqpacketConnect(path: string, handler: SeqpacketHandler): SeqpacketConnection;
}
