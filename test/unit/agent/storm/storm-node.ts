// SPDX-License-Identifier: Apache-2.0
import { DATAPLANE_MODE_LABEL, REDIRECTION_ANNOTATION } from "../../../../src/core/constants.ts";
import type { Pod } from "../../../../src/core/pod.ts";
import { FakeParts, makePod } from "../../../fakes/parts.ts";
import { ZtunnelModel } from "../../../support/zds-peer.ts";
import type { FakePeer } from "../../zds/fake-binding.ts";
import { AgentRun } from "./agent-run.ts";
import { type Chance, pause } from "./chance.ts";
import { Sandboxes } from "./sandboxes.ts";

/** Half of what the plugin waits, at the speed of the agent's clock. */
const ADD_MS = 700;

export interface StormPod {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
  ip: string;
  netns: string | undefined;
  /** Somebody is at it. */
  busy: boolean;
}

interface Connected {
  readonly model: ZtunnelModel;
  peer: FakePeer | undefined;
}

/**
 * A node with an agent that is real down to its ZDS server. Kernel, cluster and ztunnels are models that outlive
 * agents, take their time and, while `faulty`, fail now and then.
 */
export class StormNode {
  readonly world = new FakeParts({ drainSeconds: 1 });
  readonly pods = new Map<string, StormPod>();
  readonly sandboxes: Sandboxes;
  faulty = false;
  run: AgentRun;
  private readonly ztunnels = new Set<Connected>();
  private readonly ips = new Set<string>();
  private nextUid = 1;
  private readonly timer = setInterval(() => this.connect(), 10);

  constructor(
    readonly chance: Chance,
    private readonly socketDir: string,
  ) {
    this.sandboxes = new Sandboxes(this.world.dataplane.kernel, chance, (netns) => this.isHeld(netns));
    this.run = this.newRun();
  }

  async restart(end: () => Promise<void> | void): Promise<void> {
    await end();
    for (const ztunnel of this.ztunnels) this.disconnect(ztunnel);
    await pause(this.chance.number() * 60);
    this.run = this.newRun();
    await this.run.agent.start();
  }

  stop(): void {
    clearInterval(this.timer);
    this.run.kill();
  }

  startZtunnel(): void {
    this.ztunnels.add({ model: new ZtunnelModel(), peer: undefined });
  }

  /** The oldest, of which there is one but for a moment. */
  endZtunnel(): void {
    const [oldest] = this.ztunnels;
    if (oldest === undefined) return;
    this.ztunnels.delete(oldest);
    this.disconnect(oldest);
  }

  disconnectZtunnels(): void {
    for (const ztunnel of this.ztunnels) this.disconnect(ztunnel);
  }

  get models(): ZtunnelModel[] {
    return [...this.ztunnels].map(({ model }) => model);
  }

  /** A pod that nobody is at, outside the namespace `calm`. */
  anyIdle(): StormPod | undefined {
    return this.chance.of([...this.pods.values()].filter(({ busy, namespace }) => !busy && namespace !== "calm"));
  }

  /** Puts a pod into the cluster; the watch may be late with it. */
  schedule(namespace: string, name: string, labels: Record<string, string>, late: boolean): StormPod {
    const uid = `u${this.nextUid++}`;
    const pod: StormPod = { uid, namespace, name, ip: this.freeIp(), netns: undefined, busy: true };
    this.pods.set(uid, pod);
    const { cluster } = this.world;
    const made = makePod(name, { uid, namespace, phase: "Pending", ips: [], labels });
    if (!late) cluster.putPod(made);
    else {
      const key = `${namespace}/${name}`;
      cluster.live.set(key, made);
      setTimeout(() => {
        if (cluster.live.get(key) === made) cluster.live.delete(key);
        if (this.pods.has(uid)) cluster.putPod(made);
      }, this.chance.number() * 50);
    }
    return pod;
  }

  /** As kubelet: sandbox after sandbox until one is up, or the pod is gone. */
  async start(pod: StormPod): Promise<void> {
    while (this.pods.has(pod.uid)) {
      const netns = this.sandboxes.create();
      if (await this.add(pod, netns)) {
        pod.netns = netns;
        this.sandboxes.inhabited.set(pod.uid, netns);
        // The watch may still be without the pod: what kubelet reports of it comes later in any case.
        while (this.pods.has(pod.uid) && this.world.cluster.pod(pod.uid) === undefined) await pause(2);
        this.change(pod, { phase: "Running", ips: [pod.ip] });
        break;
      }
      this.sandboxes.drop(netns);
      await pause(5 + this.chance.number() * 20);
    }
    pod.busy = false;
  }

  async replace(pod: StormPod): Promise<void> {
    pod.busy = true;
    this.takeDown(pod);
    this.ips.delete(pod.ip);
    pod.ip = this.freeIp();
    await this.chance.moment();
    await this.start(pod);
  }

  async remove(pod: StormPod): Promise<void> {
    pod.busy = true;
    if (this.chance.is(0.5)) this.change(pod, { deleting: true });
    await this.chance.moment();
    this.takeDown(pod);
    await this.chance.moment();
    if (this.chance.is(0.2)) this.change(pod, { phase: "Succeeded" });
    await this.chance.moment();
    this.pods.delete(pod.uid);
    this.ips.delete(pod.ip);
    this.world.cluster.live.delete(`${pod.namespace}/${pod.name}`);
    this.world.cluster.deletePod(pod.uid);
  }

  /** An update of the pod, as the watch brings it. */
  change({ uid }: StormPod, changes: Partial<Pod>): void {
    const { cluster } = this.world;
    const now = cluster.pod(uid);
    if (now !== undefined) cluster.putPod({ ...now, ...changes, resourceVersion: `${now.resourceVersion}+` });
  }

  /** What of kernel, ztunnels, cluster and agent does not agree with the labels, a sentence each. */
  disagreements(): string[] {
    const { cluster, dataplane, probes } = this.world;
    const found: string[] = [];
    const mesh = new Set<string>();
    const expected = (what: string, is: unknown, should: unknown) => {
      if (is !== should) found.push(`${what} is ${is}, not ${should}`);
    };
    for (const { uid, namespace, ip, netns } of this.pods.values()) {
      const pod = cluster.pod(uid);
      const own = pod?.labels[DATAPLANE_MODE_LABEL];
      const wanted = own === undefined ? cluster.namespace(namespace)?.labels[DATAPLANE_MODE_LABEL] : own;
      const inMesh = wanted === "ambient";
      if (inMesh) mesh.add(uid);
      expected(`${uid} in the kernel`, dataplane.kernel.get(netns ?? "")?.mode, inMesh ? "captured" : undefined);
      expected(`${uid}'s annotation`, pod?.annotations[REDIRECTION_ANNOTATION], inMesh ? "enabled" : undefined);
      expected(`${uid}'s exemption`, probes.entries.get(ip), inMesh ? uid : undefined);
      for (const { proxies } of this.models)
        expected(`${uid}'s proxy`, proxies.get(uid)?.netns, inMesh ? netns : undefined);
    }
    const strangers = (what: string, uids: Iterable<string>) => {
      for (const uid of uids) if (!mesh.has(uid)) found.push(`${what} ${uid}`);
    };
    for (const { proxies } of this.models) strangers("a proxy runs for", proxies.keys());
    strangers("exempt is", probes.entries.values());
    strangers(
      "the agent remembers",
      [...this.run.agent.roster.all()].map(({ uid }) => uid),
    );
    expected("the number of netns that the agent holds", this.run.held.size, mesh.size);
    expected("the number of watched netns", dataplane.watchers.size, mesh.size);
    return found;
  }

  private async add(pod: StormPod, netns: string): Promise<boolean> {
    const { run } = this;
    const { uid, name, namespace, ip } = pod;
    const request = { containerId: netns, netns, ifName: "eth0", podNamespace: namespace, podName: name, podUid: uid };
    const given = new AbortController();
    const answer = run.agent.admission.add({ ...request, ips: [ip] }, given.signal).then(
      () => run.alive,
      () => false,
    );
    const over = (async () => {
      const until = performance.now() + ADD_MS;
      while (run.alive && performance.now() < until) await pause(5);
      return false;
    })();
    const added = await Promise.race([answer, over]);
    given.abort();
    return added;
  }

  private takeDown(pod: StormPod): void {
    this.sandboxes.inhabited.delete(pod.uid);
    if (pod.netns !== undefined) this.sandboxes.drop(pod.netns);
    pod.netns = undefined;
  }

  private isHeld(netns: string): boolean {
    const byProxy = this.models.some(({ proxies }) => [...proxies.values()].some((proxy) => proxy.netns === netns));
    return byProxy || [...this.run.held].some(({ id }) => id === netns);
  }

  private freeIp(): string {
    let ip: string;
    do ip = `10.0.0.${1 + this.chance.below(250)}`;
    while (this.ips.has(ip));
    this.ips.add(ip);
    return ip;
  }

  private newRun(): AgentRun {
    return new AgentRun(this.world, this.sandboxes, this.chance, () => this.faulty, this.socketDir);
  }

  /** ztunnels connect again whatever has ended their connection, and try what failed once more. */
  private connect(): void {
    const { alive, binding } = this.run;
    for (const ztunnel of alive && binding.listening ? this.ztunnels : []) {
      if (ztunnel.peer === undefined || ztunnel.peer.closedByAgent) {
        this.disconnect(ztunnel);
        ztunnel.peer = binding.connect();
        ztunnel.peer.run(ztunnel.model, (fd) => this.sandboxes.behind(fd));
        ztunnel.peer.hello();
      }
      ztunnel.model.retry();
    }
  }

  private disconnect(ztunnel: Connected): void {
    ztunnel.peer?.close();
    ztunnel.peer = undefined;
  }
}
