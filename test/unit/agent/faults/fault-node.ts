// SPDX-License-Identifier: Apache-2.0
import { cniError } from "../../../../src/cniserver/cni-error.ts";
import type { Config } from "../../../../src/core/config/config.ts";
import { DATAPLANE_MODE_LABEL, REDIRECTION_ANNOTATION } from "../../../../src/core/constants.ts";
import { AgentError } from "../../../../src/core/errors.ts";
import type { Pod } from "../../../../src/core/pod.ts";
import type { Cluster } from "../../../../src/core/ports/cluster.ts";
import type { CniPodRequest, CniVerdict } from "../../../../src/core/ports/cni.ts";
import { FakeParts, makePod } from "../../../fakes/parts.ts";
import { ZtunnelModel } from "../../../support/zds-peer.ts";
import { Chance } from "../storm/chance.ts";
import { Sandboxes } from "../storm/sandboxes.ts";
import { FaultPoint } from "./fault-point.ts";
import { Life, type World } from "./life.ts";
import { VirtualClock } from "./virtual-clock.ts";
import type { ZtunnelEnd } from "./ztunnel-end.ts";

export const AMBIENT = { [DATAPLANE_MODE_LABEL]: "ambient" };
/** What the plugin gives an ADD. */
const ADD_MS = 14_000;
const KUBELET_RETRY_MS = 500;
/** Until a killed agent's container runs again. */
const RESTART_MS = 200;
const RECONNECT_MS = 10;
const RECONNECT_MAX_MS = 320;
/** After which ztunnel tries by itself what has failed. */
const ZTUNNEL_RETRY_MS = 5000;
const OVERDUE = new AgentError("AGENT_TIMEOUT", "the agent was not done in time");
/** How long an annotation may be ahead of the truth. */
const UNTRUE_MS = 20_000;

export interface NodePod {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
  ip: string;
  netns: string | undefined;
  /** The netns in which it has been captured while it was wanted, all the time since. */
  captured: string | undefined;
  untrueSince: number | undefined;
  /** Nothing of it is started any more. */
  going: boolean;
}

interface Connected {
  readonly model: ZtunnelModel;
  end: ZtunnelEnd | undefined;
  /** Netns by uid, as it was at the last look. */
  serves: ReadonlyMap<string, string>;
}

export interface NodeOptions {
  readonly socketDir: string;
  readonly config?: Partial<Config>;
  readonly lag?: () => number;
  readonly delay?: () => number;
  readonly seed?: number;
  /** Hears of everything that is asked of the world. */
  readonly told?: (what: string) => void;
}

/** A node that outlives its agents, in a time of its own. */
export class FaultNode implements World {
  readonly clock = new VirtualClock();
  readonly point = new FaultPoint();
  readonly parts: FakeParts;
  readonly sandboxes: Sandboxes;
  readonly pods = new Map<string, NodePod>();
  readonly troubles = new Set<string>();
  readonly socketDir: string;
  readonly lag: () => number;
  readonly delay: () => number;
  readonly told: (what: string) => void;
  life: Life;
  /** An agent takes its leave: pods are let out on purpose. */
  departing = false;
  /** Netns that there are. */
  private readonly netns = new Set<string>();
  private readonly ztunnels = new Set<Connected>();
  private uids = 0;

  constructor({
    socketDir,
    config = {},
    lag = () => 20,
    delay = () => 0,
    seed = 1,
    told = () => undefined,
  }: NodeOptions) {
    this.socketDir = socketDir;
    this.lag = lag;
    this.told = (what) => told(`${Math.round(this.clock.now())}: ${what}`);
    this.delay = delay;
    this.parts = new FakeParts(config);
    this.parts.cluster.putNamespace("plain", {});
    this.parts.cluster.putNamespace("calm", AMBIENT);
    this.sandboxes = new Sandboxes(this.parts.dataplane.kernel, new Chance(seed), (netns) => this.isHeld(netns));
    this.life = new Life(this);
  }

  async boot(): Promise<void> {
    void this.start();
    this.startZtunnel();
    await this.clock.pass(10_000);
  }

  trouble(what: string): void {
    if (!this.troubles.has(what)) this.told(`!!! ${what}`);
    this.troubles.add(what);
  }

  // The agent

  readonly kill = (): void => {
    const { life } = this;
    if (!life.alive) return;
    life.end();
    this.parts.dataplane.watchers.clear();
    for (const ztunnel of this.ztunnels) ztunnel.end?.close();
    this.clock.after(RESTART_MS, () => {
      if (this.life !== life) return;
      this.life = new Life(this);
      void this.start();
    });
  };

  /** As a rolling update. */
  async restart(): Promise<void> {
    const { life } = this;
    await Promise.race([life.agent.stop(), life.died, this.clock.pause(5000)]);
    this.kill();
  }

  /** An agent that can't start ends, and its container runs again. */
  private async start(): Promise<void> {
    const { life } = this;
    await life.start().catch(() => this.life === life && this.kill());
  }

  // ztunnel

  startZtunnel(): void {
    const ztunnel: Connected = { model: new ZtunnelModel(), end: undefined, serves: new Map() };
    this.ztunnels.add(ztunnel);
    this.connect(ztunnel);
  }

  endZtunnel(): void {
    const [oldest] = this.ztunnels;
    if (oldest === undefined) return;
    this.ztunnels.delete(oldest);
    oldest.end?.close();
  }

  cutZtunnel(): void {
    for (const { end } of this.ztunnels) end?.close();
  }

  get models(): ZtunnelModel[] {
    return [...this.ztunnels].map(({ model }) => model);
  }

  /** Again and again, whatever has ended its connection. */
  private connect(ztunnel: Connected, waited = RECONNECT_MS): void {
    if (!this.ztunnels.has(ztunnel) || !this.parts.config.ambientEnabled) return;
    const again = () => void this.clock.after(RECONNECT_MS, () => this.connect(ztunnel));
    const later = Math.min(2 * waited, RECONNECT_MAX_MS);
    ztunnel.end = this.life.door.connect({
      model: ztunnel.model,
      netnsOf: (fd) => this.sandboxes.behind(fd),
      fault: (message) => {
        const fate = this.point.next(`ztunnel, ${message}`);
        this.told(`    ztunnel, ${message} ${fate ?? ""}`);
        return fate;
      },
      kill: this.kill,
      happened: this.happened,
      closed: again,
      // Where a message that got no answer is repeated, it does no harm.
      repeated: (uid) => !this.point.scattered && this.trouble(`ztunnel is told twice of ${uid}`),
      refused: () => void this.clock.after(ZTUNNEL_RETRY_MS, () => ztunnel.model.retry()),
    });
    if (ztunnel.end === undefined) this.clock.after(waited, () => this.connect(ztunnel, later));
  }

  // Pods, as kubelet has them

  /** In the API, not running yet. */
  schedule(name: string, changes: Partial<Pod> = {}): NodePod {
    this.uids += 1;
    const uid = `u${this.uids}-${name}`;
    const made = makePod(name, { uid, phase: "Pending", ips: [], ...changes });
    const { namespace } = made;
    const pod = { uid, namespace, name, ip: `10.0.0.${this.uids}`, netns: undefined };
    this.pods.set(uid, { ...pod, captured: undefined, untrueSince: undefined, going: false });
    this.parts.cluster.putPod(made);
    return this.pods.get(uid) as NodePod;
  }

  /** Sandbox after sandbox until one is up. */
  async startPod(pod: NodePod): Promise<void> {
    while (!pod.going) {
      const netns = this.makeNetns();
      if (await this.add(pod, netns)) {
        if (pod.going) return this.dropNetns(netns);
        pod.netns = netns;
        this.sandboxes.inhabited.set(pod.uid, netns);
        this.change(pod, { phase: "Running", ips: [pod.ip] });
        return;
      }
      this.dropNetns(netns);
      await this.clock.pause(KUBELET_RETRY_MS);
    }
  }

  /** As one that runs since before anybody asked an agent. */
  run(name: string, changes: Partial<Pod> = {}): NodePod {
    const pod = this.schedule(name, changes);
    pod.netns = this.makeNetns();
    this.sandboxes.inhabited.set(pod.uid, pod.netns);
    this.change(pod, { phase: "Running", ips: [pod.ip] });
    return pod;
  }

  change({ uid }: NodePod, changes: Partial<Pod>): void {
    const now = this.parts.cluster.pod(uid);
    if (now !== undefined) {
      this.parts.cluster.putPod({ ...now, ...changes, resourceVersion: `${now.resourceVersion}+` });
    }
    this.happened();
  }

  makeNetns(): string {
    const netns = this.sandboxes.create();
    this.netns.add(netns);
    return netns;
  }

  dropNetns(netns: string): void {
    this.netns.delete(netns);
    this.sandboxes.drop(netns);
  }

  takeDown(pod: NodePod): void {
    this.sandboxes.inhabited.delete(pod.uid);
    if (pod.netns !== undefined) this.dropNetns(pod.netns);
    pod.netns = undefined;
    pod.captured = undefined;
  }

  delete(pod: NodePod): void {
    this.pods.delete(pod.uid);
    this.parts.cluster.deletePod(pod.uid);
  }

  async remove(pod: NodePod): Promise<void> {
    pod.going = true;
    this.change(pod, { deleting: true });
    await this.clock.pause(30);
    this.takeDown(pod);
    await this.clock.pause(30);
    this.delete(pod);
  }

  /** Whether its ADD succeeds. */
  async add(pod: NodePod, netns: string): Promise<boolean> {
    const { uid, name, namespace, ip } = pod;
    const { life } = this;
    if (!life.started) return false;
    const wanted = this.isWanted(pod);
    const request = { containerId: netns, netns, ifName: "eth0", podNamespace: namespace, podName: name, podUid: uid };
    const ends = [...this.ztunnels].flatMap((ztunnel) => ztunnel.end ?? []);
    const answer = await this.answer(life, { ...request, ips: [ip] });
    const sure = wanted && this.isWanted(pod) && !life.agent.reconciler.queue.running.has(uid);
    if (answer === "ambient" && sure) {
      if (this.parts.dataplane.kernel.get(netns)?.mode !== "captured")
        this.trouble(`${name} starts and is not captured`);
      const served = this.isServed(pod, netns) || ends.some(({ open }) => !open);
      if (!served) this.trouble(`${name} starts, and ztunnel does not know it`);
    }
    if (answer === "sidecar" && !this.parts.sidecars.kernel.has(netns))
      this.trouble(`${name} starts and is not redirected`);
    if (typeof answer === "string") return true;
    if (!life.alive) return false;
    if (answer !== OVERDUE && !this.point.scattered) this.checkUntouched(name, netns, ends);
    const { msg, away } = cniError(answer);
    // The plugin goes by its rules for an agent that is not there.
    if (away) return namespace === "plain";
    if (msg.includes("the agent failed")) this.trouble(`${name} is told: ${msg}`);
    if (namespace === "plain") this.trouble(`${name} of no mesh is refused: ${msg}`);
    return false;
  }

  /** An ADD has failed: its sandbox is thrown away. */
  private checkUntouched(name: string, netns: string, ends: readonly ZtunnelEnd[]): void {
    const { kernel } = this.parts.dataplane;
    if (kernel.has(netns)) this.trouble(`the kernel keeps ${name}, whose ADD has failed`);
    // One that was cut off hears of it when it is asked to serve the next.
    for (const { model, end } of this.ztunnels)
      if (
        end?.open === true &&
        ends.includes(end) &&
        [...model.proxies.values()].some((proxy) => proxy.netns === netns)
      )
        this.trouble(`ztunnel keeps ${name}, whose ADD has failed`);
    if ([...this.life.held].some(({ id }) => id === netns))
      this.trouble(`the agent holds the netns of ${name}, whose ADD has failed`);
  }

  /** A pod of no mesh starts, and waits for nobody. */
  async startPlain(): Promise<void> {
    const pod = this.schedule("bystander", { namespace: "plain" });
    await this.clock.pause(100 + this.lag());
    const { life } = this;
    if (!life.started || !life.alive) return;
    const began = this.clock.now();
    const added = await this.add(pod, "/ns/bystander");
    if (!life.alive) return;
    if (!added || this.clock.now() - began > 4 * this.delay()) this.trouble("a pod of no mesh is held up");
    this.delete(pod);
  }

  private async answer(life: Life, request: CniPodRequest): Promise<CniVerdict | Error> {
    const given = new AbortController();
    let cancel: () => void = () => undefined;
    const over = new Promise<Error>((resolve) => {
      cancel = this.clock.after(ADD_MS, () => resolve(OVERDUE));
    });
    const work = life.agent.admission.add(request, given.signal).catch((error: unknown) => error as Error);
    const answer = await Promise.race([work, over, life.died.then(() => new Error("the agent is dead"))]);
    cancel();
    given.abort();
    return answer;
  }

  // What must hold

  /** Looks at what may never be. */
  readonly happened = (): void => {
    this.clock.activity += 1;
    const { kernel } = this.parts.dataplane;
    const now = this.clock.now();
    for (const pod of this.pods.values()) {
      const captured = pod.netns !== undefined && kernel.get(pod.netns)?.mode === "captured";
      if (this.departing || !this.isWanted(pod) || !this.seemsWanted(pod)) pod.captured = undefined;
      // Not what a pass under way may still release, that began before the label came back.
      else if (captured && !this.life.agent.reconciler.queue.running.has(pod.uid)) pod.captured = pod.netns;
      if (pod.captured !== undefined && !captured) this.trouble(`${pod.name} is let out`);
      if (pod.namespace === "plain" && kernel.has(pod.netns ?? "")) this.trouble(`${pod.name} is touched`);
      const served = this.isServed(pod, pod.netns);
      const able = this.life.started && !this.isBlind(pod);
      const untrue = this.announced(pod) === "enabled" && !(captured && served) && pod.netns !== undefined && able;
      if (!untrue) pod.untrueSince = undefined;
      else pod.untrueSince ??= now;
      if (now - (pod.untrueSince ?? now) > UNTRUE_MS)
        this.trouble(`${pod.name} is announced, and ${captured ? "unknown to ztunnel" : "not captured"}`);
    }
    for (const ztunnel of this.ztunnels) {
      const { model } = ztunnel;
      if (model.exited !== undefined) this.trouble(`ztunnel exits: ${model.exited}`);
      for (const [uid, netns] of ztunnel.serves) {
        if (model.proxies.get(uid)?.netns === netns) continue;
        const pod = this.pods.get(uid);
        if (pod?.captured === netns) this.trouble(`connections of ${pod.name} are cut`);
      }
      ztunnel.serves = new Map([...model.proxies].map(([uid, { netns }]) => [uid, netns]));
    }
  };

  private isServed({ uid }: NodePod, netns: string | undefined): boolean {
    // Of those that have gone, nobody is told in time.
    return this.ztunnels.size === 0 || this.models.some(({ proxies }) => proxies.get(uid)?.netns === netns);
  }

  /** Nobody could tell the truth about it now. */
  private isBlind(pod: NodePod): boolean {
    const { down } = this.point;
    if (down === undefined) return false;
    return down === "cluster.annotate" || down.startsWith("finder") || !this.isWanted(pod);
  }

  isWanted(pod: NodePod): boolean {
    return this.parts.config.ambientEnabled && wantedBy(this.parts.cluster, pod);
  }

  /** To the agent, which hears of changes later. */
  private seemsWanted(pod: NodePod): boolean {
    const { life } = this;
    return !life.watch.synced || !life.alive || wantedBy(life.watch, pod);
  }

  private announced({ uid }: NodePod): string | undefined {
    return this.parts.cluster.pod(uid)?.annotations[REDIRECTION_ANNOTATION];
  }

  /** What of kernel, ztunnel, cluster and agent does not agree with the labels, a sentence each. */
  disagreements(swept: boolean): string[] {
    const { dataplane, probes } = this.parts;
    const { life } = this;
    const found = [...this.troubles];
    const expected = (what: string, is: unknown, should: unknown) => {
      if (is !== should) found.push(`${what} is ${is}, not ${should}`);
    };
    const mesh = new Set<string>();
    const byHand = life.agent.reconciler.manual.all();
    const netnsOfMesh = new Set(byHand.map(({ netns }) => netns?.id ?? ""));
    const statuses = new Map(life.agent.pods().map((status) => [status.uid, status]));
    for (const pod of this.pods.values()) {
      const { uid, name, ip, netns = "" } = pod;
      const wanted = this.isWanted(pod);
      if (wanted) {
        mesh.add(uid);
        netnsOfMesh.add(netns);
      }
      expected(`${name} in the kernel`, dataplane.kernel.get(netns)?.mode, wanted ? "captured" : undefined);
      expected(`${name}'s annotation`, this.announced(pod), wanted ? "enabled" : undefined);
      expected(`${name}'s exemption`, probes.entries.get(ip), wanted ? uid : undefined);
      for (const { proxies } of this.reachable())
        expected(`${name}'s proxy`, proxies.get(uid)?.netns, wanted ? netns : undefined);
      if (!wanted) continue;
      const status = statuses.get(uid);
      expected(`${name} in the agent`, status?.state, "enrolled");
      expected(`${name} in the agent's view of ztunnel`, status?.acked, true);
      const { engine: _engine, ...spec } = life.agent.roster.get(uid)?.spec ?? {};
      const inKernel: unknown = JSON.parse(dataplane.kernel.get(netns)?.spec ?? "{}");
      expected(`${name}'s settings`, JSON.stringify(inKernel), JSON.stringify(spec));
    }
    const strangers = (what: string, uids: Iterable<string>) => {
      for (const uid of uids) if (!mesh.has(uid) && !uid.startsWith("manual")) found.push(`${what} ${uid}`);
    };
    for (const { proxies, pending } of this.reachable()) {
      strangers("a proxy runs for", proxies.keys());
      strangers("a proxy is to run for", pending.keys());
    }
    strangers("exempt is", probes.entries.values());
    for (const netns of dataplane.kernel.keys())
      if (!netnsOfMesh.has(netns) && this.netns.has(netns)) found.push(`something of ours is in ${netns}`);
    const { roster, reconciler } = life.agent;
    const { queue } = reconciler;
    strangers(
      "the agent remembers",
      [...roster.all()].map(({ uid }) => uid),
    );
    expected("the number of enrollments", roster.size, netnsOfMesh.size);
    expected("the number of netns that the agent holds", life.held.size, netnsOfMesh.size);
    if (swept) {
      // Nothing but a sweep comes by again where watching failed, or writing down.
      expected("the number of watched netns", life.watches, netnsOfMesh.size);
      expected("the number of captures by hand on file", this.parts.claims.written.length, byHand.length);
    }
    expected("the number of keys at work", queue.depth + queue.sleeping, 0);
    // The sweep's, the patrol's and the pulse's; without ambient there may be less.
    if (this.parts.config.ambientEnabled) expected("the number of timers", life.timers.size, 3);
    expected("the clear namespaces", this.parts.published.at(-1)?.includes("shop"), !this.named("shop"));
    return found;
  }

  /** With ambient off nobody serves them. */
  private reachable(): ZtunnelModel[] {
    return this.parts.config.ambientEnabled ? this.models : [];
  }

  private named(namespace: string): boolean {
    if (!this.parts.config.ambientEnabled) return false;
    const space = this.parts.cluster.namespace(namespace);
    if (space?.labels[DATAPLANE_MODE_LABEL] !== undefined) return true;
    return [...this.pods.values()].some((pod) => pod.namespace === namespace && this.isWanted(pod));
  }

  private isHeld(netns: string): boolean {
    const byProxy = this.models.some(({ proxies }) => [...proxies.values()].some((proxy) => proxy.netns === netns));
    return byProxy || [...this.life.held].some(({ id }) => id === netns);
  }
}

function wantedBy(cluster: Pick<Cluster, "pod" | "namespace">, { uid, namespace }: NodePod): boolean {
  const pod = cluster.pod(uid);
  if (pod === undefined || pod.phase === "Succeeded" || pod.containers.includes("istio-proxy")) return false;
  const own = pod.labels[DATAPLANE_MODE_LABEL];
  return (own ?? cluster.namespace(namespace)?.labels[DATAPLANE_MODE_LABEL]) === "ambient";
}
