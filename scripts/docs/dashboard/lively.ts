// SPDX-License-Identifier: Apache-2.0
// Three minutes of a cluster of two nodes on which everything happens that the dashboard shows.
import { renameSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { DATAPLANE_MODE_LABEL, REDIRECTION_ANNOTATION } from "../../../src/core/constants.ts";
import { expired } from "../../../src/sandbox/apiserver/failure.ts";
import { ECHO_PORT } from "../../../src/sandbox/app/protocol.ts";
import type { PodTemplate, RunningPod } from "../../../src/sandbox/kubelet.ts";
import type { MeshWorkload } from "../../../src/sandbox/mesh-config.ts";
import { ipOf } from "../../../src/sandbox/pod-records.ts";
import type { Sandbox } from "../../../src/sandbox/sandbox.ts";
import { until } from "../../../src/sandbox/until.ts";

const NAMESERVER = "10.96.0.10";
const ENGINE = "ambient-cni.io/engine";
const REROUTE = "istio.io/reroute-virtual-interfaces";
const EXCLUDE_PORTS = "traffic.sidecar.istio.io/excludeOutboundPorts";

/** Pods of namespace lab. */
const LAB = ["one", "two", "three"];

type Settings = Omit<PodTemplate, "namespace" | "name">;

export class LivelyCluster {
  private readonly pods = new Map<string, RunningPod>();
  private readonly workloads: MeshWorkload[] = [];
  private readonly callers: Promise<void>[] = [];
  private began = 0;
  private over = false;

  constructor(private readonly nodes: readonly [Sandbox, Sandbox]) {}

  /** Seconds after which it is over. */
  readonly seconds = 180;

  /** Agents, ztunnels, and the first pods, none of them in the mesh. */
  async prepare(): Promise<void> {
    const { api } = this.nodes[0];
    for (const name of ["shop", "lab", "legacy"]) api.put({ kind: "Namespace", metadata: { name } });
    for (const sandbox of this.nodes) {
      sandbox.describeMesh([], []);
      await sandbox.startAgent();
      sandbox.startZtunnel();
      await sandbox.ztunnelsConnected(1);
    }
    await this.start(0, "shop/web");
    await this.start(0, "shop/cart", { annotations: { [ENGINE]: "nftables" } });
    await this.start(1, "shop/api");
    await this.start(1, "legacy/batch");
    await this.start(0, "legacy/proxied", { sidecar: true });
    for (const name of LAB) await this.start(1, `lab/${name}`, { program: "sleep" });
    await this.start(0, "lab/wrong", { annotations: { [REROUTE]: "eth0;" }, program: "sleep" });
    await this.app("shop/web").open("old", ipOf(this.pod("shop/cart"), 4), ECHO_PORT);
  }

  /** Lets it all happen; resolves when it is over. */
  async run(say: (text: string) => void): Promise<void> {
    this.began = Date.now();
    this.call("shop/web", "shop/cart", 40);
    this.call("shop/web", "shop/api", 70);
    this.call("shop/api", "shop/cart", 150);
    this.call("legacy/batch", "shop/web", 120);
    this.ask("shop/web", 200);
    for (const [second, name, step] of this.steps()) {
      await sleep(Math.max(0, this.began + second * 1000 - Date.now()));
      say(`${second} s: ${name}`);
      await step();
    }
    this.over = true;
    await Promise.all(this.callers);
  }

  private steps(): readonly (readonly [second: number, name: string, step: () => Promise<unknown>])[] {
    const [one, two] = this.nodes;
    return [
      [10, "namespace shop joins the mesh", () => this.join("shop", ["web", "cart", "api"])],
      [20, "pods come", () => this.come(0, 6)],
      [32, "pods come on the other node", () => this.come(1, 6)],
      [42, "one's ADD is refused", () => this.refused()],
      [48, "the old connection closes", () => this.app("shop/web").close("old")],
      [50, "namespace lab joins the mesh, but for a wrong annotation", () => this.join("lab", LAB)],
      [52, "somebody flushes rules", () => this.flush(5)],
      [64, "and removes the plugin", () => this.removePlugin()],
      [70, "a ztunnel dies", async () => one.ztunnels[0]?.child.killProgram()],
      [80, "pods come on the other node", () => this.come(1, 4)],
      [95, "the other node's ztunnel is replaced", async () => two.startZtunnel()],
      [101, "the older one ends", async () => two.ztunnels[0]?.child.end()],
      [108, "the annotation is put right", async () => this.annotate("lab", "wrong", REROUTE, "")],
      [115, "the API server has forgotten too much", async () => one.api.failWatches(expired("too old"))],
      [123, "an agent is restarted", () => this.restartAgent()],
      [127, "its ztunnel is stopped", async () => lastZtunnel(two).signal("SIGSTOP")],
      [138, "and goes on", async () => lastZtunnel(two).signal("SIGCONT")],
      [140, "another ztunnel comes", async () => one.startZtunnel()],
      [148, "namespace lab leaves the mesh", async () => one.label("lab", DATAPLANE_MODE_LABEL, null)],
      [154, "pods go", () => this.go(5)],
      [162, "the primary CNI's configuration goes", async () => renameSync(one.confPath, `${one.confPath}.away`)],
      [169, "and comes", async () => renameSync(`${one.confPath}.away`, one.confPath)],
      [this.seconds, "over", async () => undefined],
    ];
  }

  private pod(name: string): RunningPod {
    const found = this.pods.get(name);
    if (found === undefined) throw new Error(`no pod ${name}`);
    return found;
  }

  private app(name: string) {
    const { app } = this.pod(name);
    if (app === undefined) throw new Error(`${name} runs no app`);
    return app;
  }

  private async start(node: 0 | 1, pod: string, settings: Settings = {}): Promise<void> {
    const [namespace = "", name = ""] = pod.split("/");
    const sandbox = this.nodes[node];
    const running = await sandbox.kubelet.run({ namespace, name, ...settings });
    this.pods.set(pod, running);
    const protocol = namespace === "legacy" ? "TCP" : "HBONE";
    this.workloads.push({ namespace, name, serviceAccount: "default", ips: running.ips, protocol, node: sandbox.name });
    for (const each of this.nodes) each.describeMesh(this.workloads, []);
  }

  private async join(namespace: string, pods: readonly string[]): Promise<void> {
    const [sandbox] = this.nodes;
    sandbox.label(namespace, DATAPLANE_MODE_LABEL, "ambient");
    const enrolled = (name: string) => sandbox.annotation(namespace, name, REDIRECTION_ANNOTATION) === "enabled";
    await until(`${namespace} is enrolled`, () => pods.every(enrolled));
  }

  /** Pods of all engines, one after the other. */
  private async come(node: 0 | 1, count: number): Promise<void> {
    const engines = ["ebpf", "nftables", "iptables"];
    for (let each = 0; each < count; each++) {
      const annotations = { [ENGINE]: engines[each % engines.length] ?? "" };
      await this.start(node, `shop/more-${this.pods.size}`, { annotations, program: "sleep" });
      await sleep(1000);
    }
  }

  /** The first of those that came, all of them on the first node. */
  private async go(count: number): Promise<void> {
    const names = [...this.pods.keys()].filter((name) => name.startsWith("shop/more-"));
    for (const name of names.slice(0, count)) await this.nodes[0].kubelet.remove(this.pod(name));
  }

  private async refused(): Promise<void> {
    const { kubelet } = this.nodes[0];
    const pod = { namespace: "legacy", name: "refused", sidecar: true, annotations: { [EXCLUDE_PORTS]: "http" } };
    kubelet.records.create(pod);
    for (let each = 0; each < 4; each++) {
      await kubelet.start(pod).catch(() => undefined);
      await sleep(1000);
    }
  }

  private async flush(count: number): Promise<void> {
    const { attachment } = this.pod("shop/cart");
    for (let each = 0; each < count; each++) {
      const argv = ["nsenter", `--net=${attachment.netns}`, "--", "nft", "flush", "ruleset"];
      await this.nodes[0].node.run(argv, { timeoutMs: 5000 });
      await sleep(2000);
    }
  }

  private async removePlugin(): Promise<void> {
    const { node } = this.nodes[0];
    await node.run(["rm", node.path("opt/cni/bin/istio-cni")], { timeoutMs: 5000 });
  }

  private async restartAgent(): Promise<void> {
    await this.nodes[1].endAgent("SIGTERM");
    await this.nodes[1].startAgent();
  }

  private async annotate(namespace: string, name: string, key: string, value: string): Promise<void> {
    const { api } = this.nodes[0];
    const pod = api.get("Pod", namespace, name);
    if (pod === undefined) throw new Error(`${namespace}/${name} is not in the API`);
    const annotations = { ...pod.metadata.annotations, [key]: value };
    api.put({ ...pod, metadata: { ...pod.metadata, annotations } });
  }

  /** One request after the other until it is over, whatever becomes of them. */
  private call(from: string, to: string, everyMs: number): void {
    const url = `http://${ipOf(this.pod(to), 4)}:8080/`;
    this.again(everyMs, () => this.app(from).fetch(url, "", 1000));
  }

  private ask(from: string, everyMs: number): void {
    this.again(everyMs, () => this.app(from).resolve(NAMESERVER, "cart.shop", 4, 500));
  }

  private again(everyMs: number, what: () => Promise<unknown>): void {
    const turns = async () => {
      while (!this.over) {
        await what().catch(() => undefined);
        await sleep(everyMs);
      }
    };
    this.callers.push(turns());
  }
}

function lastZtunnel({ ztunnels, name }: Sandbox) {
  const last = ztunnels.at(-1);
  if (last === undefined) throw new Error(`${name} has no ztunnel`);
  return last.child;
}
