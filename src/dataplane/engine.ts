// SPDX-License-Identifier: Apache-2.0
import type { CaptureSpec, EngineName, EngineTest, Observation } from "../core/ports/dataplane.ts";
import type { NetnsHandle, NetnsId } from "../core/ports/netns.ts";
import type { PlannedChange } from "../core/ports/plan.ts";
import type { ZtunnelPeer } from "../core/ports/ztunnel.ts";
import type { VerdictCounts } from "../core/verdicts.ts";
import type { SocketInfo } from "../native/binding.ts";
import type { Legs, PlanMode } from "./netfilter/mode.ts";

/**
 * One way to steer a pod's traffic into ztunnel. Policy route, rule and sysctls are common to all
 * engines (routes.ts, sysctls.ts); what an engine owns is the steering itself.
 */
export interface Engine {
  readonly name: EngineName;
  /** True when it counts on the pod's sysctls; known after the self-test. */
  readonly needsSysctls: boolean;
  /**
   * Made of netfilter rules: connections that others have redirected go on by its NAT hooks, and replies to legs
   * that conntrack remembers come back.
   */
  readonly translates: boolean;
  /** Proves the engine by real connections in scratch namespaces. Never rejects. */
  selfTest(): Promise<EngineTest>;
  /** What `apply` would write, as text. Pure. @throws AgentError for a value it refuses. */
  plan(spec: CaptureSpec): string;
  /** What `apply` would write into this netns, if nothing of ours were in it. No fork. @throws AgentError as `plan`. */
  planned(netns: NetnsHandle, spec: CaptureSpec, state: EngineState): readonly PlannedChange[];
  /** Why this engine can't capture this pod, or undefined. Reads the kernel, no fork. */
  ineligible(netns: NetnsHandle, spec: CaptureSpec): string | undefined;
  /** Compares the kernel with the plan. No fork. */
  observe(netns: NetnsHandle, spec: CaptureSpec): Observation;
  /** True when steering of this engine is in the netns, whatever it says. No fork. */
  present(netns: NetnsHandle): boolean;
  /** Whether what is in the netns steers, for whatever settings; "captured" where that can't be told. No fork. */
  mode(netns: NetnsHandle): PlanMode | undefined;
  /** Puts the plan into the kernel in one step, without a gap. `state` is kept with it. */
  apply(netns: NetnsHandle, spec: CaptureSpec, state: EngineState): Promise<void>;
  /** A real connection inside the netns that meets the steering, unseen by ztunnel. @throws AgentError. */
  verify(netns: NetnsHandle, spec: CaptureSpec): Promise<void>;
  /** Steers no new connection; what keeps open ones alive stays. */
  drain(netns: NetnsHandle, spec: CaptureSpec): Promise<void>;
  /**
   * Another engine steers this netns from now on: as `drain`, and nothing is refused either. Seen by
   * `observe` as draining. It stays until `keepsAlive` is 0, then `remove` is called.
   */
  retire(netns: NetnsHandle, spec: CaptureSpec): Promise<void>;
  /** No connection of another engine's is left in the netns. */
  alone?(netns: NetnsHandle, spec: CaptureSpec): void;
  /** Of these open sockets of ztunnel's in the netns, how many live through this engine's steering. Pure. */
  keepsAlive(sockets: readonly SocketInfo[]): number;
  /** Removes the steering. Idempotent. */
  remove(netns: NetnsHandle): Promise<void>;
  /** What `apply` kept, or undefined without steering. */
  state(netns: NetnsHandle): EngineState | undefined;
  /** What it has counted in this netns, by verdict or rule. No fork. */
  counters?(netns: NetnsHandle): Readonly<Record<string, number>>;
  /** What it has decided in this netns since it was captured, in words that all engines share. No fork. */
  verdicts(netns: NetnsHandle): VerdictCounts;
  /** For an engine that acts on ztunnel's process: it is here, and owns no listener in any pod yet. */
  meet?(ztunnel: ZtunnelPeer): void;
  /**
   * For an engine that keeps ztunnel's listeners: those of this netns may have changed. Called before
   * `apply` of a new pod, and also for pods that this engine does not steer.
   */
  listenersOpened?(netns: NetnsHandle): void;
  /**
   * Why no other engine may capture this pod: this one does, and neither can it be removed from here. For an
   * engine that works this is never so. No fork.
   */
  unreachable?(netns: NetnsHandle): string | undefined;
  /** Puts back what it has outside the pods' netns. Returns what was missing, each a sentence. @throws NativeError */
  mendShared?(): readonly string[];
  /** Removes what belongs to netns that are gone. */
  collect?(): void;
  /**
   * For an agent that none of ours follows: removes from the node what no captured pod needs. `inUse`: netns that
   * somebody may still open connections in. Returns what has to stay and why. Ends the engine's work.
   */
  vacate?(inUse: ReadonlySet<NetnsId>): string | undefined;
  /** Gives back what the process holds; pods stay captured. */
  close(): void;
}

/** What must survive the agent and has no better place than beside the steering in the kernel. */
export interface EngineState {
  /** Letters of the sysctls that we changed (sysctls.ts): only those are put back on release. */
  readonly sysctls: string;
  /** Connections of another engine's go on in the netns, until `alone`. */
  readonly beside?: boolean;
  /** For engines made of netfilter rules: which legs of ztunnel's to the application are open. */
  readonly legs?: Legs;
}
