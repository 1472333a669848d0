// SPDX-License-Identifier: Apache-2.0
// The interfaces through which the agent (floor 3) holds the parts of floor 2. Those parts never
// import each other; each implements one of these and is handed the others' results as plain data.
import type { AgentPod, DaemonSet } from "./daemonset.ts";
import type { Stop } from "./disposable.ts";
import type { NodeInfo } from "./placement.ts";
import type { Namespace, Pod } from "./pod.ts";
import type { Redirection } from "./redirection.ts";

// ---- telemetry -------------------------------------------------------------------------------

export type LogFields = Readonly<Record<string, unknown>>;

export interface Logger {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
  /** Logger of another scope (upstream's word): `cni-agent`, `zds`, `kube`, ... */
  child(scope: string): Logger;
}

export type MetricLabels = Readonly<Record<string, string>>;

/** Names and labels are declared in one table, src/telemetry/metrics.ts; an undeclared name throws. */
export interface Metrics {
  count(name: string, labels?: MetricLabels, by?: number): void;
  set(name: string, value: number, labels?: MetricLabels): void;
  /** Seconds, as Prometheus wants durations. */
  observe(name: string, value: number, labels?: MetricLabels): void;
}

/** What was decided about a pod. One word for one thing: it is a log line's message and a timeline's entry. */
export type DecisionKind =
  /** The runtime's ADD was answered; `reason` says how. */
  | "cni add"
  /** Found captured at the start of the agent. */
  | "adopted"
  | "captured"
  /** Into its sidecar; `detail`: the mode, or that somebody else's redirection was found. */
  | "redirected"
  /** What another program had changed in its netns is as it should be again. */
  | "repaired"
  | "pass failed"
  /** Its sandbox was replaced. */
  | "netns replaced"
  | "annotated"
  | "ztunnel acked"
  | "ztunnel refused"
  | "draining"
  | "released"
  /** Gone, or ended. */
  | "forgotten"
  | "older connections";

export interface Decision {
  readonly what: DecisionKind;
  readonly engine?: EngineName | undefined;
  readonly milliseconds?: number;
  /** ms of each step. */
  readonly phases?: Readonly<Record<string, number>>;
  /** Stable word or code. */
  readonly reason?: string;
  readonly detail?: string;
  /** ms until it is tried again. */
  readonly nextTryMs?: number;
}

export interface DecisionRecord {
  readonly decision: Decision;
  /** Wall clock, ms, of the last of `times` equal ones in a row. */
  readonly at: number;
  readonly times: number;
}

/** Keeps the last decisions of each pod and writes each into the log, one line per decision. */
export interface Journal {
  /** `quiet`: for the log this is no news. */
  note(pod: { readonly uid: string; readonly name: string }, decision: Decision, quiet?: boolean): void;
  /** Oldest first; none for a pod of which nothing is known. */
  of(uid: string): readonly DecisionRecord[];
  /** Pods that have some, the one with the newest decision last. */
  pods(): readonly { readonly uid: string; readonly name: string }[];
}

// ---- kubernetes ------------------------------------------------------------------------------

export interface PodChange {
  readonly kind: "upsert" | "delete";
  readonly pod: Pod;
  /** What the cache held before, if anything. */
  readonly previous: Pod | undefined;
}

export interface NamespaceChange {
  readonly kind: "upsert" | "delete";
  readonly namespace: Namespace;
  readonly previous: Namespace | undefined;
}

export interface PodRef {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
}

export interface PodEvent {
  readonly type: "Normal" | "Warning";
  /** UpperCamelCase, e.g. `AmbientEnrollmentFailed`. */
  readonly reason: string;
  readonly message: string;
  /** Who says so; undefined: the agent. */
  readonly reporter?: string;
}

export type RedirectionState = "enabled" | "pending";

/** The cluster as this node sees it: pods of this node and all namespaces, cached by uid. */
export interface Cluster {
  /** Starts list and watch; resolves when both caches hold one complete list. */
  start(): Promise<void>;
  /** Resolves when every socket is closed. */
  stop(): Promise<void>;
  readonly synced: boolean;
  pods(): IterableIterator<Pod>;
  pod(uid: string): Pod | undefined;
  podNamed(namespace: string, name: string): Pod | undefined;
  namespace(name: string): Namespace | undefined;
  namespaces(): IterableIterator<Namespace>;
  onPod(listener: (change: PodChange) => void): Stop;
  onNamespace(listener: (change: NamespaceChange) => void): Stop;
  /** One live GET, for a CNI request that is newer than the cache. `undefined` = 404. */
  readPod(namespace: string, name: string, signal: AbortSignal): Promise<Pod | undefined>;
  /**
   * Live GETs of what runs the agent. `undefined` = 404. @throws AgentError KUBE_*, KUBE_MALFORMED for an answer
   * that can't be believed.
   */
  readDaemonSet(namespace: string, name: string, signal: AbortSignal): Promise<DaemonSet | undefined>;
  readAgentPod(namespace: string, name: string, signal: AbortSignal): Promise<AgentPod | undefined>;
  readNode(name: string, signal: AbortSignal): Promise<NodeInfo | undefined>;
  /**
   * Sets or (null) removes `ambient.istio.io/redirection` through pods/status, with the uid as
   * precondition: a successor of the same name is never touched (`gone`).
   */
  annotate(pod: PodRef, value: RedirectionState | null): Promise<"patched" | "gone">;
  /**
   * Deletes this very version of a pod. "changed": there is news of it. @throws AgentError KUBE_*.
   */
  deleteBrokenPod(pod: PodRef & { readonly resourceVersion: string }): Promise<"deleted" | "gone" | "changed">;
  /** Sets a label of a pod, through pods/status, with the uid as precondition. @throws AgentError KUBE_*. */
  labelBrokenPod(pod: PodRef, key: string, value: string): Promise<"patched" | "gone" | "changed">;
  /** Posts an Event about a pod. Never rejects: no permission (403) is logged once. */
  event(pod: PodRef, event: PodEvent): Promise<void>;
  /** How current the caches are, for people. */
  status(): readonly CollectionStatus[];
}

/** How current one collection of the cluster is. */
export interface CollectionStatus {
  readonly resource: string;
  readonly synced: boolean;
  readonly size: number;
  readonly resourceVersion: string | undefined;
  /** Age of the open watch; undefined while there is none. */
  readonly watchAgeSeconds: number | undefined;
  readonly relists: number;
}

// ---- network namespaces ----------------------------------------------------------------------

/** A held network namespace: the fd keeps it alive, (dev, ino) is its identity. */
export interface NetnsHandle extends Disposable {
  /** Throws after close. */
  readonly fd: number;
  readonly id: NetnsId;
  close(): void;
}

/** `dev:ino` of the nsfs file, as text so that it can key a Map. */
export type NetnsId = string;

export interface NetnsFinder {
  /**
   * One pass over /proc for all wanted pods. The caller owns the returned handles. A pod is absent
   * when none of its processes lives in a netns that carries one of its addresses.
   */
  find(pods: readonly Pod[]): Promise<Map<string, NetnsHandle>>;
  /**
   * Opens the netns path of a CNI request (a path of the host).
   * @throws AgentError when it is no netns, is the host's own, or lies outside the mounted paths.
   */
  open(hostPath: string): NetnsHandle;
  /** The host's own netns, for probe exemption; held for the life of the process. */
  host(): NetnsHandle;
  /**
   * Every netns that some process of the node lives in, the host's left out. One pass over /proc. @throws when a pod's
   * process can't be read.
   */
  inhabited(): Promise<ReadonlySet<NetnsId>>;
}

// ---- ztunnel ---------------------------------------------------------------------------------

export interface Workload {
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
}

/** What one pod contributes to a snapshot: with netns an `add`, without one a `keep`. */
export interface SnapshotEntry {
  readonly workload: Workload;
  readonly netns: NetnsHandle | undefined;
}

export interface ZtunnelConnection {
  readonly id: number;
  /** Pid of the peer in our pid namespace; 0 when it lives in another one. */
  readonly pid: number;
  readonly ready: boolean;
  readonly acked: number;
}

/** Who is at the other end of a ZDS connection. */
export interface ZtunnelPeer {
  /** ZtunnelConnection.id */
  readonly connection: number;
  /** In our pid namespace; 0 when it lives in another one, as every container does. */
  readonly pid: number;
  /** pidfd of the process; -1 when the kernel can't tell (before 6.5). Closed once the callee returns. */
  readonly pidfd: number;
}

export interface ZtunnelListener {
  /** A ztunnel has said hello; it is told nothing before this returns. */
  met(peer: ZtunnelPeer): void;
  /** The connection of one that was met has ended. The process may live on and connect again. */
  parted(connection: number): void;
  /** This workload's listeners are bound in that netns (unknown for a `keep`): a snapshot's ack, or a later one. */
  acked(uid: string, connection: number, netns: NetnsId | undefined): void;
  /** ztunnel refused an add of a snapshot; it retries by itself every 5 s. */
  refused(uid: string, connection: number, reason: string): void;
  /** A connection finished its snapshot (`ready`) or is gone. */
  changed(): void;
}

export interface Ztunnel {
  /** Binds the socket. Peers may connect but are not read before `serve`. */
  listen(): void;
  /** Starts answering peers. Call it only once the pod list has been rebuilt: an early snapshot kills proxies. */
  serve(snapshot: () => readonly SnapshotEntry[], listener: ZtunnelListener): void;
  /**
   * Sends `add` to the newest connection that finished its snapshot, falling back to the next.
   * Resolves on its ack. @throws AgentError NO_ZTUNNEL | ZTUNNEL_REFUSED | ZTUNNEL_TIMEOUT.
   */
  add(workload: Workload, netns: NetnsHandle, signal?: AbortSignal): Promise<void>;
  /**
   * Sends `del` to every connection; resolves when all that live have acked or died. The uid is in no
   * snapshot from here on, until the next `add`.
   */
  del(uid: string): Promise<void>;
  connections(): readonly ZtunnelConnection[];
  /** False when a ztunnel that comes now would not find the socket: it was removed under us. */
  readonly listening: boolean;
  stop(): Promise<void>;
}

// ---- dataplane -------------------------------------------------------------------------------

export type EngineName = "ebpf" | "nftables" | "iptables";

/** What must be true of one pod's traffic: data from Kubernetes and configuration, already validated. */
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

/** One thing about a pod's kernel state. */
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

export interface EngineTest {
  readonly engine: EngineName;
  readonly works: boolean;
  /** Why not; undefined when it works. */
  readonly reason: string | undefined;
  /** Features lost here, each a sentence (e.g. sysctls denied: no collision fix). */
  readonly losses: readonly string[];
  readonly milliseconds: number;
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

/** A captured pod's connections that are older than its capture: in the clear until they close. */
export interface ExistingConnections {
  /** How many are open. Reads the kernel, no fork. */
  count(netns: NetnsHandle, spec: CaptureSpec): number;
  /**
   * Resets them: both ends see their connection end. Returns how many there were. Only TCP that would be
   * captured if it were made now.
   */
  reset(netns: NetnsHandle, spec: CaptureSpec): number;
}

/** What a proof is about: one row of what must be true of a captured pod's traffic. */
export type ProofRow =
  /** Outbound TCP is answered by ztunnel, and `getpeername` shows who was asked for. */
  | "outbound"
  /** A remote's connection to the pod is answered by ztunnel. */
  | "inbound"
  /** A remote's connection to 15008 is ztunnel's, at the pod's own address. */
  | "hbone"
  /** A connection of the node's (kubelet's probe) reaches the application directly. */
  | "probe"
  /** The pod reaches itself, at its own address and over loopback. */
  | "itself"
  /** Calls to ztunnel's own ports are refused. */
  | "own-ports"
  | "dns-tcp"
  | "dns-udp"
  /** Of a sidecar pod: from 127.0.0.1 to 127.0.0.6, as the pod's own check connects. */
  | "redirected";

export interface Proof {
  readonly row: ProofRow;
  readonly family: 4 | 6;
  readonly result: "proved" | "failed" | "skipped";
  /** What was seen, or why nothing could be. */
  readonly evidence: string;
  readonly milliseconds: number;
}

/** Real connections inside a captured pod's netns that show where its traffic lands. */
export interface Prover {
  /** Every row that applies. Leaves nothing behind. Rejects only when the netns can't be read. */
  prove(netns: NetnsHandle, spec: CaptureSpec): Promise<readonly Proof[]>;
}

/** A sidecar pod, for who looks at its redirection. */
export interface RedirectedPod {
  readonly ips: readonly string[];
  readonly redirection: Redirection;
  readonly proxyUid: number;
}

/** What is found of the redirection into a pod's sidecar. */
export interface RedirectionObservation {
  /**
   * absent: nothing of it. redirected: ours, as it should be. foreign: somebody else's (upstream's plugin, or
   * an istio-init), which we leave as it is. differs: ours, but not as it should be.
   */
  readonly mode: "absent" | "redirected" | "foreign" | "differs";
  /** Who steers; of a foreign one, by what it is made of. */
  readonly engine: EngineName | undefined;
  /** Sentences, empty unless mode is `differs`. */
  readonly differences: readonly string[];
}

/** Redirection of sidecar pods: written once, when the pod's sandbox is made, and gone with its netns. */
export interface SidecarDataplane {
  /** Finds out in advance what works on this node, so that the first pod need not wait for it. Never rejects. */
  warm(): Promise<void>;
  /** Reads the kernel; no fork. */
  observe(netns: NetnsHandle, redirection: Redirection): RedirectionObservation;
  /**
   * Writes it with the best engine that works on this node, and verifies it by real connections; undone when
   * that fails. A redirection that is right, or foreign, stays as it is. `pod` is for messages.
   * @throws AgentError NO_ENGINE with every engine's reason.
   */
  redirect(netns: NetnsHandle, redirection: Redirection, pod: string): Promise<RedirectionObservation>;
  /** Everything of a pod's redirection, for people. Reads the kernel, no fork. */
  examine(netns: NetnsHandle, pod: RedirectedPod): readonly KernelFact[];
  /**
   * Real connections inside its netns show where its traffic lands, whoever has written the rules. Leaves
   * nothing behind. Rejects only when the netns can't be read.
   */
  prove(netns: NetnsHandle, pod: RedirectedPod): Promise<readonly Proof[]>;
  /** Removes everything of ours. Idempotent. */
  remove(netns: NetnsHandle, redirection: Redirection): Promise<void>;
}

/** A pod as the probe exemption needs to know it. */
export interface ExemptPod {
  readonly uid: string;
  readonly ips: readonly string[];
  /** The one that captures it, or will. */
  readonly engine: EngineName;
}

/** A pod that probes reach without an agent; with `seconds` only that long. */
export interface ProbeHeir extends ExemptPod {
  readonly seconds?: number;
}

/** Host side: probes from this node reach enrolled pods directly. Entries are owned by pod uid. */
export interface ProbeExemption {
  /** Creates what is missing, flushes nothing, begins to watch for removal by other tools. */
  start(): Promise<void>;
  /** Before capture. Idempotent. Calls made close together share one transaction. */
  allow(pod: ExemptPod): Promise<void>;
  /** After capture, in the same way: what only the captured pod can show is found out with it. */
  settle(pod: ExemptPod, netns: NetnsHandle): Promise<void>;
  /** Removes only entries that belong to this uid: a recycled address stays with its new owner. */
  revoke(uid: string, ips: readonly string[]): Promise<void>;
  /** Removes entries of ours that belong to no pod in `owners`, adds missing ones. */
  reconcile(owners: ReadonlyMap<string, ExemptPod & { readonly netns: NetnsHandle }>): Promise<void>;
  /** Stops watching; everything stays for the next agent. */
  stop(): Promise<void>;
  /**
   * As stop, for an agent that no other one of ours follows: from now on probes reach exactly these pods, without
   * any agent's help. Without pods nothing of ours is left on the host.
   */
  bequeath(heirs: readonly ProbeHeir[]): Promise<void>;
}

// ---- CNI plugin ------------------------------------------------------------------------------

export interface CniPodRequest {
  readonly containerId: string;
  /** Host path; empty for upstream's protocol on DEL. */
  readonly netns: string;
  readonly ifName: string;
  readonly podNamespace: string;
  readonly podName: string;
  /** Absent from upstream's protocol and old runtimes. */
  readonly podUid: string | undefined;
  /** Canonical addresses of prevResult. */
  readonly ips: readonly string[];
}

export type CniVerdict = "ambient" | "sidecar" | "none";

/** What the agent answers to the plugin. A rejected promise becomes a CNI error with code and remedy. */
export interface CniHandler {
  add(request: CniPodRequest, signal: AbortSignal): Promise<CniVerdict>;
  /** CHECK: rejects only when the pod is known to be in the mesh and is not captured. */
  check(request: CniPodRequest, signal: AbortSignal): Promise<void>;
}
