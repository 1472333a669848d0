// SPDX-License-Identifier: Apache-2.0
// Stand-ins for everything below the agent. They keep state as the real ones do (a kernel, a cluster,
// a ztunnel) and write every change into one journal, so that tests can assert the order.
import type { Parts } from "../../src/agent/parts.ts";
import { type Clock, systemClock } from "../../src/core/clock.ts";
import type { Config } from "../../src/core/config/config.ts";
import { REDIRECTION_ANNOTATION } from "../../src/core/constants.ts";
import type { AgentPod, DaemonSet } from "../../src/core/daemonset.ts";
import { AgentError } from "../../src/core/errors.ts";
import type { NodeInfo } from "../../src/core/placement.ts";
import type { Namespace, Pod } from "../../src/core/pod.ts";
import type {
  Cluster,
  NamespaceChange,
  PodChange,
  PodEvent,
  PodRef,
  RedirectionState,
} from "../../src/core/ports/cluster.ts";
import type {
  CaptureMode,
  CapturePlan,
  CaptureSpec,
  Dataplane,
  EngineName,
  Examination,
  ExistingConnections,
  KernelFact,
  Observation,
  Unaccepted,
} from "../../src/core/ports/dataplane.ts";
import type { ManualClaim, ManualClaims } from "../../src/core/ports/manual.ts";
import type { NetnsFinder, NetnsHandle, NetnsId } from "../../src/core/ports/netns.ts";
import type { ExemptPod, ProbeExemption, ProbeHeir } from "../../src/core/ports/probes.ts";
import type { Proof } from "../../src/core/ports/proof.ts";
import type { RedirectedPod, RedirectionObservation, SidecarDataplane } from "../../src/core/ports/sidecar.ts";
import type { Logger, Metrics } from "../../src/core/ports/telemetry.ts";
import type {
  SnapshotEntry,
  Workload,
  Ztunnel,
  ZtunnelListener,
  ZtunnelPeer,
  ZtunnelTrouble,
} from "../../src/core/ports/ztunnel.ts";
import type { Redirection } from "../../src/core/redirection.ts";
import type { VerdictCounts } from "../../src/core/verdicts.ts";
import { DriftLedger } from "../../src/telemetry/drift-ledger.ts";
import { DecisionJournal } from "../../src/telemetry/journal.ts";
import { podWith } from "../support/pod.ts";

export const silent: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  child: () => silent,
};

export const noMetrics: Metrics = { count: () => undefined, set: () => undefined, observe: () => undefined };

let version = 1;

export function makePod(name: string, changes: Partial<Pod> = {}): Pod {
  return podWith({ uid: `uid-${name}`, namespace: "shop", name, resourceVersion: String(version++), ...changes });
}

export class FakeCluster implements Cluster {
  synced = false;
  readonly store = new Map<string, Pod>();
  readonly spaces = new Map<string, Namespace>();
  /** Pods that only a live GET finds. */
  readonly live = new Map<string, Pod>();
  /** Live GETs of pods. */
  readonly reads: string[] = [];
  readonly events: string[] = [];
  /** Whether a patch shows up in the cache, as the watch would bring it. */
  echoPatches = true;
  annotateError: Error | undefined;
  annotateHangs = false;
  /** Of deleting and labelling broken pods. */
  mendError: Error | undefined;
  private readonly podListeners = new Set<(change: PodChange) => void>();
  private readonly spaceListeners = new Set<(change: NamespaceChange) => void>();

  constructor(private readonly journal: string[]) {
    this.putNamespace("shop", { "istio.io/dataplane-mode": "ambient" });
  }

  async start(): Promise<void> {
    this.synced = true;
  }
  async stop(): Promise<void> {}
  pods() {
    return this.store.values();
  }
  pod(uid: string) {
    return this.store.get(uid);
  }
  podNamed(namespace: string, name: string) {
    return [...this.store.values()].find((pod) => pod.namespace === namespace && pod.name === name);
  }
  namespace(name: string) {
    return this.spaces.get(name);
  }
  namespaces() {
    return this.spaces.values();
  }
  onPod(listener: (change: PodChange) => void) {
    this.podListeners.add(listener);
    return () => this.podListeners.delete(listener);
  }
  onNamespace(listener: (change: NamespaceChange) => void) {
    this.spaceListeners.add(listener);
    return () => this.spaceListeners.delete(listener);
  }
  async readPod(namespace: string, name: string) {
    this.reads.push(`${namespace}/${name}`);
    return this.live.get(`${namespace}/${name}`);
  }
  /** What the live GETs bring; an Error is thrown. */
  daemonSet: DaemonSet | undefined | Error;
  agentPod: AgentPod | undefined | Error;
  node: NodeInfo | undefined | Error;
  async readDaemonSet() {
    return thrown(this.daemonSet);
  }
  async readAgentPod() {
    return thrown(this.agentPod);
  }
  async readNode() {
    return thrown(this.node);
  }
  planAnnotation({ name }: PodRef, value: RedirectionState | null) {
    return [{ what: "PATCH", text: `${name} ${value}` }];
  }
  async annotate(pod: PodRef, value: RedirectionState | null): Promise<"patched" | "gone"> {
    if (this.annotateError !== undefined) throw this.annotateError;
    if (this.annotateHangs) await new Promise(() => undefined);
    this.journal.push(`annotate ${pod.name} ${value}`);
    const stored = this.store.get(pod.uid);
    if (stored === undefined) return "gone";
    const { [REDIRECTION_ANNOTATION]: _old, ...rest } = stored.annotations;
    const annotations = value === null ? rest : { ...rest, [REDIRECTION_ANNOTATION]: value };
    if (this.echoPatches) this.putPod({ ...stored, annotations, resourceVersion: String(version++) });
    return "patched";
  }
  status() {
    const one = (resource: string, size: number) => ({
      resource,
      synced: this.synced,
      size,
      resourceVersion: "7",
      watchAgeSeconds: 41,
      relists: 2,
    });
    return [one("pods", this.store.size), one("namespaces", this.spaces.size)];
  }
  async deleteBrokenPod({ uid, name, resourceVersion }: PodRef & { readonly resourceVersion: string }) {
    this.#mendError();
    const stored = this.store.get(uid);
    if (stored === undefined) return "gone" as const;
    if (stored.resourceVersion !== resourceVersion) return "changed" as const;
    this.journal.push(`delete ${name}`);
    this.deletePod(uid);
    return "deleted" as const;
  }
  async labelBrokenPod({ uid, name }: PodRef, key: string, value: string) {
    this.#mendError();
    const stored = this.store.get(uid);
    if (stored === undefined) return "gone" as const;
    this.journal.push(`label ${name} ${key}=${value}`);
    this.putPod({ ...stored, labels: { ...stored.labels, [key]: value }, resourceVersion: String(version++) });
    return "patched" as const;
  }
  #mendError(): void {
    if (this.mendError !== undefined) throw this.mendError;
  }
  async event(pod: PodRef, event: PodEvent): Promise<void> {
    this.events.push(`${event.reason} ${pod.name}: ${event.message}`);
  }

  putPod(pod: Pod): void {
    const previous = this.store.get(pod.uid);
    this.store.set(pod.uid, pod);
    for (const listener of this.podListeners) listener({ kind: "upsert", pod, previous });
  }
  deletePod(uid: string): void {
    const pod = this.store.get(uid);
    if (pod === undefined) return;
    this.store.delete(uid);
    for (const listener of this.podListeners) listener({ kind: "delete", pod, previous: pod });
  }
  putNamespace(name: string, labels: Record<string, string>): void {
    const previous = this.spaces.get(name);
    const namespace = { uid: `ns-${name}`, name, labels, resourceVersion: String(version++) };
    this.spaces.set(name, namespace);
    for (const listener of this.spaceListeners) listener({ kind: "upsert", namespace, previous });
  }
  deleteNamespace(name: string): void {
    const namespace = this.spaces.get(name);
    if (namespace === undefined) return;
    this.spaces.delete(name);
    for (const listener of this.spaceListeners) listener({ kind: "delete", namespace, previous: namespace });
  }
}

function thrown<T>(answer: T | Error): T {
  if (answer instanceof Error) throw answer;
  return answer;
}

export class FakeHandle implements NetnsHandle {
  closed = false;
  constructor(
    readonly id: string,
    private readonly open: Set<FakeHandle>,
  ) {
    open.add(this);
  }
  get fd(): number {
    if (this.closed) throw new Error("the netns is closed");
    return 1000;
  }
  close(): void {
    this.closed = true;
    this.open.delete(this);
  }
  [Symbol.dispose](): void {
    this.close();
  }
}

export class FakeFinder implements NetnsFinder {
  /** Netns id by pod uid: what /proc shows. */
  readonly proc = new Map<string, string>();
  readonly openHandles = new Set<FakeHandle>();
  /** Paths that lead nowhere. */
  readonly closed = new Set<string>();
  passes = 0;

  async find(pods: readonly Pod[]) {
    this.passes += 1;
    const found = new Map<string, NetnsHandle>();
    for (const { uid } of pods) {
      const id = this.proc.get(uid);
      if (id !== undefined) found.set(uid, new FakeHandle(id, this.openHandles));
    }
    return found;
  }
  open(path: string, handed?: NetnsHandle) {
    if (handed !== undefined) return handed;
    if (!path.startsWith("/") || this.closed.has(path)) {
      throw new AgentError("NETNS_PATH_INVALID", `no netns: ${path}`);
    }
    return new FakeHandle(path, this.openHandles);
  }
  /** Netns whose interfaces have lost the pod's addresses. */
  readonly emptied = new Set<string>();
  missing({ id }: NetnsHandle, ips: readonly string[]): readonly string[] {
    return this.emptied.has(id) ? ips : [];
  }
  async inhabited() {
    return new Set(this.proc.values());
  }
  host() {
    return new FakeHandle("host", this.openHandles);
  }
}

export class FakeZtunnel implements Ztunnel {
  listening = true;
  connected = true;
  addError: Error | undefined;
  delError: Error | undefined;
  readonly known = new Map<string, string | undefined>();
  listener: ZtunnelListener | undefined;
  snapshot: (() => readonly SnapshotEntry[]) | undefined;

  constructor(private readonly journal: string[]) {}
  listen(): void {
    this.journal.push("ztunnel listen");
  }
  serve(snapshot: () => readonly SnapshotEntry[], listener: ZtunnelListener): void {
    this.journal.push("ztunnel serve");
    this.snapshot = snapshot;
    this.listener = listener;
  }
  plan({ name }: Workload) {
    return [{ what: "ZDS", text: `add ${name}` }];
  }
  async add(workload: Workload, netns: NetnsHandle): Promise<void> {
    if (!this.connected) throw new AgentError("NO_ZTUNNEL", "no ztunnel is connected");
    if (this.addError !== undefined) throw this.addError;
    this.journal.push(`zds add ${workload.name}`);
    this.known.set(workload.uid, netns.id);
    this.listener?.acked(workload.uid, 1, netns.id);
  }
  async del(uid: string): Promise<void> {
    if (this.delError !== undefined) throw this.delError;
    this.journal.push(`zds del ${uid}`);
    this.known.delete(uid);
  }
  connections() {
    const one = { id: 1, pid: 0, uid: 0, protocol: 1, seconds: 60, ready: true, acked: this.known.size };
    return this.connected ? [one] : [];
  }
  trouble(): ZtunnelTrouble | undefined {
    return undefined;
  }
  async stop(): Promise<void> {}

  /** A ztunnel connects and takes its snapshot. */
  connect(): void {
    this.connected = true;
    this.listener?.met({ connection: 1, pid: 0, pidfd: -1 });
    for (const { workload, netns } of this.snapshot?.() ?? []) {
      this.known.set(workload.uid, netns?.id);
      this.listener?.acked(workload.uid, 1, netns?.id);
    }
    this.listener?.changed();
  }
  disconnect(): void {
    this.connected = false;
    this.listener?.parted(1);
    this.listener?.changed();
  }
}

export class FakeDataplane implements Dataplane {
  engine: EngineName = "nftables";
  readonly tests = [];
  /** What is in each netns. */
  readonly kernel = new Map<string, { mode: CaptureMode; prepared: boolean; spec: string | undefined }>();
  /** Netns that upstream's rules capture. */
  readonly upstreams = new Set<string>();
  startError: Error | undefined;
  captureError: Error | undefined;
  handOverError: Error | undefined;
  observeError: Error | undefined;
  planError: Error | undefined;
  proxied = 0;
  readonly watchers = new Map<() => void, string>();
  /** What was told of ztunnels, with the mode of the netns at that time. */
  readonly heard: string[] = [];

  constructor(private readonly journal: string[]) {}
  async start() {
    if (this.startError !== undefined) throw this.startError;
    return [];
  }
  private state(id: string) {
    let state = this.kernel.get(id);
    if (state === undefined) {
      state = { mode: "absent", prepared: false, spec: undefined };
      this.kernel.set(id, state);
    }
    return state;
  }
  observe(netns: NetnsHandle, spec: CaptureSpec): Observation {
    if (this.observeError !== undefined) throw this.observeError;
    if (this.upstreams.has(netns.id)) return { mode: "differs", engine: undefined, differences: ["istio-cni's rules"] };
    const { mode = "absent", spec: applied } = this.kernel.get(netns.id) ?? {};
    if (mode !== "captured") return { mode, engine: "nftables", differences: [] };
    const differences = [...(applied === JSON.stringify(spec) ? [] : ["rules differ"]), ...this.unhooked];
    return { mode: differences.length > 0 ? "differs" : mode, engine: "nftables", differences };
  }
  engineFor() {
    return "nftables" as const;
  }
  examine(netns: NetnsHandle, spec: CaptureSpec | undefined): Examination {
    const mode = this.kernel.get(netns.id)?.mode ?? "absent";
    const ok = spec === undefined ? mode === "absent" : mode === "captured";
    return { facts: [{ name: "capture", ok, text: mode }], counters: {} };
  }
  /** What mendShared finds next. */
  unhooked: string[] = [];
  mendShared(): readonly string[] {
    return this.unhooked.splice(0);
  }
  /** By netns, as the kernel has counted. */
  readonly counted = new Map<string, VerdictCounts>();
  verdicts({ id }: NetnsHandle): VerdictCounts {
    return this.counted.get(id) ?? {};
  }
  plan(_netns: NetnsHandle, spec: CaptureSpec, wanted?: EngineName): CapturePlan {
    if (this.planError !== undefined) throw this.planError;
    const engine = wanted ?? this.engine;
    const preparation = [{ what: "routes", text: `for ${spec.ips.join()}` }];
    return { engine, others: [], preparation, steering: [{ what: "rules", text: `of ${engine}` }] };
  }
  present(netns: NetnsHandle): boolean {
    return this.kernel.has(netns.id) || this.upstreams.has(netns.id);
  }
  async prepare(netns: NetnsHandle, spec: CaptureSpec): Promise<void> {
    this.journal.push(`prepare ${spec.pod}`);
    this.state(netns.id).prepared = true;
  }
  async capture(netns: NetnsHandle, spec: CaptureSpec) {
    if (this.captureError !== undefined) throw this.captureError;
    this.journal.push(`capture ${spec.pod}`);
    this.upstreams.delete(netns.id);
    this.kernel.set(netns.id, { mode: "captured", prepared: true, spec: JSON.stringify(spec) });
    return "nftables" as const;
  }
  async drain(netns: NetnsHandle, spec: CaptureSpec): Promise<void> {
    this.journal.push(`drain ${spec.pod}`);
    this.state(netns.id).mode = "draining";
  }
  meet({ connection }: ZtunnelPeer): void {
    this.heard.push(`meet ${connection}`);
  }
  listenersOpened({ id }: NetnsHandle): void {
    const { mode, prepared } = this.kernel.get(id) ?? { mode: "absent", prepared: false };
    this.heard.push(`listeners of ${id}: ${prepared ? "prepared, " : ""}${mode}`);
  }
  collect(): void {}
  vacate(inUse: ReadonlySet<NetnsId>): readonly string[] {
    this.journal.push(`vacate all but ${[...inUse].sort().join()}`);
    return [];
  }
  /** By netns: what waits at ztunnel's listeners. */
  readonly waiting = new Map<string, readonly Unaccepted[]>();
  unaccepted({ id }: NetnsHandle): readonly Unaccepted[] {
    return this.waiting.get(id) ?? [];
  }
  proxiedConnections(): number {
    return this.proxied;
  }
  async handOver(netns: NetnsHandle, spec: CaptureSpec): Promise<void> {
    if (this.handOverError !== undefined) throw this.handOverError;
    this.journal.push(`hand over ${spec.pod}`);
    this.kernel.delete(netns.id);
  }
  async release(netns: NetnsHandle): Promise<void> {
    this.journal.push(`release ${netns.id}`);
    this.upstreams.delete(netns.id);
    this.kernel.delete(netns.id);
  }
  watch(netns: NetnsHandle, changed: () => void) {
    const watcher = () => changed();
    this.watchers.set(watcher, netns.id);
    return () => void this.watchers.delete(watcher);
  }
  /** Somebody changed the kernel in this netns. */
  touched(netnsId: string): void {
    for (const [watcher, id] of [...this.watchers]) if (id === netnsId) watcher();
  }
}

export class FakeProbes implements ProbeExemption {
  readonly entries = new Map<string, string>();
  /** By uid, as last reconciled. */
  readonly engines = new Map<string, EngineName>();
  error: Error | undefined;
  heirs: readonly ProbeHeir[] | undefined;
  /** Runs while `reconcile` is under way. */
  meanwhile: () => void = () => undefined;
  constructor(private readonly journal: string[]) {}
  async start(): Promise<void> {}
  plan({ ips }: ExemptPod) {
    return [{ what: "host", text: `exempt ${ips.join()}` }];
  }
  async allow({ uid, ips }: ExemptPod): Promise<void> {
    if (this.error !== undefined) throw this.error;
    this.journal.push(`exempt ${uid} ${ips.join()}`);
    for (const ip of ips) this.entries.set(ip, uid);
  }
  async revoke(uid: string, ips: readonly string[]): Promise<void> {
    if (this.error !== undefined) throw this.error;
    this.journal.push(`revoke ${uid} ${ips.join()}`);
    for (const ip of ips) if (this.entries.get(ip) === uid) this.entries.delete(ip);
  }
  async settle(): Promise<void> {}
  async reconcile(owners: ReadonlyMap<string, ExemptPod>): Promise<void> {
    this.meanwhile();
    this.entries.clear();
    for (const [uid, { ips, engine }] of owners) {
      this.engines.set(uid, engine);
      for (const ip of ips) this.entries.set(ip, uid);
    }
  }
  async stop(): Promise<void> {}
  async bequeath(heirs: readonly ProbeHeir[]): Promise<void> {
    this.heirs = heirs;
    this.journal.push(`bequeath ${heirs.map(({ uid }) => uid).join()}`);
  }
}

export class FakeClaims implements ManualClaims {
  written: readonly ManualClaim[] = [];
  error: Error | undefined;
  async read() {
    return this.written;
  }
  async write(claims: readonly ManualClaim[]) {
    if (this.error !== undefined) throw this.error;
    this.written = [...claims];
  }
}

export class FakeExisting implements ExistingConnections {
  /** Open connections by netns. */
  readonly open = new Map<string, number>();
  constructor(private readonly journal: string[]) {}
  count({ id }: NetnsHandle): number {
    return this.open.get(id) ?? 0;
  }
  protect(): void {}
  reset({ id }: NetnsHandle): number {
    const count = this.open.get(id) ?? 0;
    if (count > 0) this.journal.push(`reset ${count} of ${id}`);
    this.open.delete(id);
    return count;
  }
}

export class FakeSidecars implements SidecarDataplane {
  /** Redirection in each netns, as text; "foreign" for somebody else's, "outdated" for one of other settings. */
  readonly kernel = new Map<string, string>();
  error: Error | undefined;
  constructor(private readonly journal: string[]) {}
  async warm(): Promise<void> {
    this.journal.push("warm sidecars");
  }
  observe({ id }: NetnsHandle, redirection: Redirection): RedirectionObservation {
    const there = this.kernel.get(id);
    if (there === undefined) return { mode: "absent", engine: undefined, differences: [] };
    if (there === "foreign") return { mode: "foreign", engine: "iptables", differences: [] };
    if (there === "outdated") {
      return { mode: "differs", engine: "nftables", differences: ["made for other settings"], outdated: true };
    }
    const right = there === JSON.stringify(redirection);
    return { mode: right ? "redirected" : "differs", engine: "nftables", differences: right ? [] : ["rules differ"] };
  }
  async redirect(netns: NetnsHandle, redirection: Redirection, pod: string): Promise<RedirectionObservation> {
    const before = this.observe(netns, redirection);
    if (before.mode === "redirected" || before.mode === "foreign") return before;
    if (this.error !== undefined) throw this.error;
    this.journal.push(`redirect ${pod}`);
    this.kernel.set(netns.id, JSON.stringify(redirection));
    return this.observe(netns, redirection);
  }
  examine(netns: NetnsHandle, { redirection }: RedirectedPod): readonly KernelFact[] {
    const { mode } = this.observe(netns, redirection);
    return [{ name: "redirection", ok: mode === "redirected", text: mode }];
  }
  async prove(): Promise<readonly Proof[]> {
    throw new Error("a fake proves nothing");
  }
  async remove({ id }: NetnsHandle): Promise<void> {
    this.kernel.delete(id);
  }
}

export const AMBIENT_SELECTORS: Config["enablementSelectors"] = [
  {
    podSelector: { requirements: [{ key: "istio.io/dataplane-mode", operator: "In", values: ["ambient"] }] },
    namespaceSelector: { requirements: [] },
  },
  {
    podSelector: { requirements: [{ key: "istio.io/dataplane-mode", operator: "NotIn", values: ["none"] }] },
    namespaceSelector: { requirements: [{ key: "istio.io/dataplane-mode", operator: "In", values: ["ambient"] }] },
  },
];

/** Only what the agent reads; anything else would be undefined at run time and fail the test. */
const AGENT_CONFIG: Partial<Config> = {
  ambientEnabled: true,
  enablementSelectors: AMBIENT_SELECTORS,
  excludedNamespaces: ["kube-system"],
  dnsCapture: true,
  dnsCaptureServers: "all",
  ipv6: true,
  excludeOutboundCidrs: [],
  podExcludeOutboundCidrs: false,
  sidecarOwnerGroups: { include: "*", exclude: [] },
  probeIpv4: "169.254.7.127",
  probeIpv6: "fd16:9254:7127:1337:ffff:ffff:ffff:ffff",
  drainSeconds: 1,
  repair: {
    enabled: true,
    repairPods: false,
    deletePods: false,
    labelPods: false,
    labelKey: "cni.istio.io/uninitialized",
    labelValue: "true",
    sidecarAnnotation: "sidecar.istio.io/status",
    initContainerName: "istio-validation",
    initContainerExitCode: 126,
    initContainerTerminationMessage: "",
    labelSelectors: { requirements: [] },
    fieldSelectors: [],
    nodeName: "",
  },
  existingConnections: "keep",
};

/** A whole set of parts with one journal. */
export class FakeParts implements Parts {
  readonly journal: string[] = [];
  config: Config;
  readonly cluster = new FakeCluster(this.journal);
  readonly finder = new FakeFinder();
  readonly ztunnel = new FakeZtunnel(this.journal);
  readonly dataplane = new FakeDataplane(this.journal);
  /** Pids that are stopped. */
  readonly stopped: number[] = [];
  readonly ztunnelProcesses = { met: () => undefined, stopped: () => this.stopped };
  readonly probes = new FakeProbes(this.journal);
  readonly sidecars = new FakeSidecars(this.journal);
  readonly existing = new FakeExisting(this.journal);
  readonly published: (readonly string[])[] = [];
  readonly nameservers = () => undefined;
  lastAliveAt: number | undefined;
  readonly claims = new FakeClaims();
  readonly decisions = new DecisionJournal(silent);
  readonly drift = new DriftLedger(noMetrics);
  readonly logger = silent;
  readonly metrics = noMetrics;
  readonly clock: Clock = systemClock;

  constructor(config: Partial<Config> = {}) {
    this.config = { ...AGENT_CONFIG, ...config } as Config;
  }
  async publish(clear: readonly string[]): Promise<void> {
    this.published.push(clear);
  }
  /** Adds a running pod whose process lives in netns `ns-<name>`. */
  run(name: string, changes: Partial<Pod> = {}): Pod {
    const pod = makePod(name, changes);
    this.finder.proc.set(pod.uid, `ns-${name}`);
    this.cluster.putPod(pod);
    return pod;
  }
}

/** Waits until `condition` holds. @throws Error naming `what` after two seconds. */
export async function eventually(what: string, condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 2000;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`never came true: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
