// SPDX-License-Identifier: Apache-2.0
// Kernel state of captured pods, whichever engine writes it.
import type { Stop } from "../disposable.ts";
import type { VerdictCounts } from "../verdicts.ts";
import type { NetnsHandle, NetnsId } from "./netns.ts";
import type { PlannedChange } from "./plan.ts";
import type { ZtunnelPeer } from "./ztunnel.ts";

export const ENGINE_NAMES = ["ebpf", "nftables", "iptables"] as const;
export type EngineName = (typeof ENGINE_NAMES)[number];

export interface CaptureSpec {
  readonly uid: string;
  /** `namespace/name`, for messages only. */
  readonly pod: string;
  readonly ips: readonly string[];
  /** False: the node says AMBIENT_IPV6=false. A netns without IPv6 is handled by the engine. */
  readonly ipv6: boolean;
  readonly dnsCapture: boolean;
  /** The engine that the pod's annotation asks for, where the node heeds it. */
  readonly engine?: EngineName;
  /** Nameservers to capture; undefined = every port-53 destination. */
  readonly dnsServers: readonly string[] | undefined;
  readonly bypassInbound: boolean;
  readonly rerouteInterfaces: readonly string[];
  readonly excludeOutboundCidrs: readonly string[];
  readonly probeIpv4: string;
  readonly probeIpv6: string;
}

export type CaptureMode =
  /** Nothing of ours in the netns. */
  | "absent"
  /** New and established traffic goes through ztunnel as specified. */
  | "captured"
  /** Established proxied connections go on, new ones are not captured. */
  | "draining"
  /** Something of ours is there, but not what the spec asks for. */
  | "differs";

export interface Observation {
  readonly mode: CaptureMode;
  readonly engine: EngineName | undefined;
  /** Sentences, empty unless mode is `differs`. */
  readonly differences: readonly string[];
}

export interface KernelFact {
  readonly name: string;
  /** Whether it is as it should be; null: neither right nor wrong. */
  readonly ok: boolean | null;
  readonly text: string;
}

export interface Examination {
  readonly facts: readonly KernelFact[];
  /** What the engine has counted, by verdict or rule. */
  readonly counters: Readonly<Record<string, number>>;
}

/** Why a pod gets another engine than the node's: the words of the metric. */
export const FALLBACK_KINDS = ["ineligible", "failed"] as const;
export type FallbackKind = (typeof FALLBACK_KINDS)[number];

export interface EngineTest {
  readonly engine: EngineName;
  readonly works: boolean;
  /** Why not; undefined when it works. */
  readonly reason: string | undefined;
  /** Features lost here, each a sentence (e.g. sysctls denied: no collision fix). */
  readonly losses: readonly string[];
  readonly milliseconds: number;
}

/** What an enrolment would write into a netns in which nothing of ours is. */
export interface CapturePlan {
  readonly engine: EngineName;
  /** Every other engine, and why it is not that one. */
  readonly others: readonly { readonly engine: EngineName; readonly reason: string }[];
  /** Of `prepare`. */
  readonly preparation: readonly PlannedChange[];
  /** Of `capture`. */
  readonly steering: readonly PlannedChange[];
}

/** A listener of ztunnel's at which connections wait. */
export interface Unaccepted {
  /** Tells it from a later one at the same port. */
  readonly listener: bigint;
  readonly port: number;
  readonly connections: number;
}

export interface Dataplane {
  /** Functional self-test of each engine in a scratch netns pair. @throws AgentError NO_ENGINE. */
  start(): Promise<readonly EngineTest[]>;
  /** The engine new pods get. */
  readonly engine: EngineName;
  /** The engine that this pod will get, as far as can be told before. No fork. */
  engineFor(netns: NetnsHandle, spec: CaptureSpec): EngineName;
  readonly tests: readonly EngineTest[];
  /** Reads the kernel; no fork. */
  observe(netns: NetnsHandle, spec: CaptureSpec): Observation;
  /** True when anything of ours is in the netns, whatever it says. No fork. */
  present(netns: NetnsHandle): boolean;
  /** Everything about the netns that a person may want to know; `spec` undefined for a pod that is not of the mesh. No fork. */
  examine(netns: NetnsHandle, spec: CaptureSpec | undefined): Examination;
  /** What this engine has decided in the netns since it captured it. Reads the kernel, no fork; cheaper than `examine`. */
  verdicts(netns: NetnsHandle, engine: EngineName): VerdictCounts;
  /**
   * What `prepare` and `capture` would do, with this engine or else the one that the pod would get. Reads the kernel,
   * no fork, and changes nothing. @throws AgentError as they do, and NO_ENGINE for an engine that does not work here.
   */
  plan(netns: NetnsHandle, spec: CaptureSpec, engine?: EngineName): CapturePlan;
  /**
   * Puts right what all pods of the node stand on besides what is in their netns. Returns what was missing, each a
   * sentence. No fork. @throws NativeError
   */
  mendShared(): readonly string[];
  /** Sysctls, route and rule: harmless without capture. Idempotent; undone when a step fails. */
  prepare(netns: NetnsHandle, spec: CaptureSpec): Promise<void>;
  /** Capture on and verified from inside the netns; an unchanged netns costs no fork. Undone on failure. */
  capture(netns: NetnsHandle, spec: CaptureSpec, keep?: boolean): Promise<EngineName>;
  /** New connections are no longer captured, proxied ones go on. */
  drain(netns: NetnsHandle, spec: CaptureSpec): Promise<void>;
  /** A ztunnel has come, and has been told of no pod yet. Failures are logged, never thrown. */
  meet(ztunnel: ZtunnelPeer): void;
  /**
   * ztunnel's listeners in this netns may be others than before: one was told of the pod, or one has
   * gone. Idempotent. Failures are logged, never thrown.
   */
  listenersOpened(netns: NetnsHandle): void;
  /** ztunnel's listeners in this netns at which connections wait to be accepted. No fork. */
  unaccepted(netns: NetnsHandle): readonly Unaccepted[];
  /** Open connections that run through ztunnel in this netns. */
  proxiedConnections(netns: NetnsHandle): number;
  /**
   * For an agent that istio-cni follows: upstream's own rules steer new connections of this netns from now on,
   * open ones live on, and nothing of ours captures any more, so that upstream's agent finds the pod as one of
   * its own and can also un-enrol it. Idempotent: called again, it takes away what open connections had still
   * needed. A pod for which this fails stays captured.
   */
  handOver(netns: NetnsHandle, spec: CaptureSpec): Promise<void>;
  /** Removes everything of ours, and of istio-cni's. Idempotent. */
  release(netns: NetnsHandle): Promise<void>;
  /**
   * Calls back when anything that capture depends on may have changed in the netns: nf_tables, rules,
   * routes. One or two fds per netns; coalesced. Our own changes may be told too.
   */
  watch(netns: NetnsHandle, changed: () => void): Stop;
  /** Removes what belongs to pods that are gone. Never throws. */
  collect(): void;
  /**
   * For an agent that none of ours follows: removes from the node what no captured pod needs, last of all. `inUse`:
   * netns that somebody may still open connections in. Returns what has to stay, each with its reason. Failures are
   * logged, never thrown.
   */
  vacate(inUse: ReadonlySet<NetnsId>): readonly string[];
}

export interface ExistingConnections {
  /** How many are open. Reads the kernel, no fork. */
  count(netns: NetnsHandle, spec: CaptureSpec): number;
  /**
   * From here on ztunnel's calls to the pod's applications get no port that a client has which is connected with one of
   * them past ztunnel; those that were kept for such clients, and are not needed any more, are given back.
   */
  protect(netns: NetnsHandle): void;
  /**
   * Resets them: both ends see their connection end. Returns how many there were. Only TCP that would be
   * captured if it were made now.
   */
  reset(netns: NetnsHandle, spec: CaptureSpec): number;
}
