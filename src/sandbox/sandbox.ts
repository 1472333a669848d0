// SPDX-License-Identifier: Apache-2.0
import { createWriteStream, existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { type HeldNetns, openNetns } from "../native/netns.ts";
import type { Child } from "../sys/child.ts";
import { ADMIN, AGENT, accounts, SYSTEM_NAMESPACE } from "./accounts.ts";
import { AgentDaemonSet, agentPod } from "./agent-daemonset.ts";
import { AgentView } from "./agent-view.ts";
import type { Account } from "./apiserver/access.ts";
import { ApiServer } from "./apiserver/api-server.ts";
import { CertificateService } from "./ca/certificate-service.ts";
import { type Chart, chart } from "./charts.ts";
import { Doorway } from "./doorway.ts";
import { CertificateAuthority } from "./identity/authority.ts";
import { type AgentImage, builtFiles, startJailed } from "./jail.ts";
import { Kubelet } from "./kubelet.ts";
import { type MeshService, type MeshWorkload, writeMeshConfig } from "./mesh-config.ts";
import { type NodeNetwork, nodeNetwork, writePrimaryConf } from "./network.ts";
import { firstLine, type NodeOptions, removeStaleSandboxes, SandboxNode } from "./node.ts";
import { until } from "./until.ts";
import { connectNodes } from "./uplink.ts";
import { ZtunnelProcess } from "./ztunnel-process.ts";

export interface SandboxOptions {
  /** The bundle that holds agent, stand-in and pod program: dist/agent.mjs. */
  readonly program: string;
  /** "newest" or "1.24". */
  readonly chart: string;
  /** A real ztunnel's binary; undefined = the stand-in. */
  readonly ztunnel: string | undefined;
  readonly node?: NodeOptions;
  /** Of the agent, beyond those that the charts give it. */
  readonly agentCapabilities?: readonly string[];
  /** Further environment of the agent. */
  readonly agentEnv?: Readonly<Record<string, string>>;
  /** What the agent may ask of the API; default: what the charts grant. */
  readonly agentRules?: Account["rules"];
  /** The first node of the cluster that this one is the second of: they share its API server. */
  readonly joins?: Sandbox;
}

/**
 * A playground cluster of one node: API server, kubelet, agent in its jail, ztunnel, pods. A second node is another
 * one that joins it.
 */
export class Sandbox {
  readonly node: SandboxNode;
  readonly api: ApiServer;
  readonly network: NodeNetwork;
  readonly kubelet: Kubelet;
  readonly daemonSet: AgentDaemonSet;
  readonly chart: Chart;
  readonly confPath: string;
  agent: Child | undefined;
  private readonly view = new AgentView(() => (this.agent === undefined ? undefined : this.agentNetnsPath));
  readonly ztunnels: ZtunnelProcess[] = [];
  private readonly doorways: Doorway[] = [];
  /** For a real ztunnel; the stand-in signs for itself. */
  private certificates: CertificateService | undefined;
  private agentStarts = 0;
  private agentNetns: HeldNetns | undefined;
  private stopping: Promise<void> | undefined;

  private constructor(private readonly options: SandboxOptions) {
    this.chart = chart(options.chart);
    const { joins } = options;
    this.network = nodeNetwork(joins === undefined ? 0 : 1);
    this.node = new SandboxNode(options.node);
    this.api = joins?.api ?? new ApiServer({ accounts: accounts(options.agentRules), names: [this.network.gateway4] });
    this.daemonSet = joins?.daemonSet ?? new AgentDaemonSet(this.api, SYSTEM_NAMESPACE, this.chart);
    this.confPath = this.node.path("etc/cni/net.d/10-sandbox.conflist");
    this.kubelet = new Kubelet(this.node, this.api, options.program, this.confPath, this.name);
  }

  /** Of the node. */
  get name(): string {
    return this.network.node;
  }

  /** For kubectl. */
  get kubeconfigPath(): string {
    return this.node.path("kubeconfig");
  }

  /**
   * Brings up node and API; no agent, no ztunnel, no pods yet. On failure nothing is left. `made` gets the
   * sandbox before anything of it exists that `stop` would have to remove.
   */
  static async create(options: SandboxOptions, made: (sandbox: Sandbox) => void = () => undefined): Promise<Sandbox> {
    await removeStaleSandboxes();
    const sandbox = new Sandbox(options);
    made(sandbox);
    try {
      await sandbox.begin();
      return sandbox;
    } catch (error) {
      await sandbox.stop();
      throw error;
    }
  }

  private async begin(): Promise<void> {
    const { joins } = this.options;
    await this.node.start();
    if (joins === undefined) await this.beginCluster();
    this.api.put({ kind: "Node", metadata: { name: this.name, labels: { "kubernetes.io/os": "linux" } } });
    await this.api.kubeconfig(this.kubeconfigPath, ADMIN);
    await this.api.serviceAccount(this.node.path("secrets"), SYSTEM_NAMESPACE, AGENT);
    // Shared, so that an old and a new stand-in trust each other during a rolling update, and those of two nodes.
    const authority = joins?.authority ?? CertificateAuthority.create().toPem();
    writeFileSync(this.node.path("ca.pem"), authority, { mode: 0o600 });
    if (this.options.ztunnel !== undefined) await this.serveCertificates(CertificateAuthority.fromPem(authority));
    writePrimaryConf(this.confPath, this.node.path("ipam"), this.network);
    await this.prepareNetwork();
    if (joins !== undefined) {
      await connectNodes(
        { pid: joins.node.pid, network: joins.network },
        { pid: this.node.pid, network: this.network },
      );
    }
  }

  private async beginCluster(): Promise<void> {
    await this.api.start();
    for (const name of ["default", "kube-system", SYSTEM_NAMESPACE]) {
      this.api.put({ kind: "Namespace", metadata: { name } });
    }
    this.daemonSet.put();
  }

  private async serveCertificates(authority: CertificateAuthority): Promise<void> {
    writeFileSync(this.rootPath, authority.rootCertificate);
    this.certificates = await CertificateService.start(authority);
  }

  private get rootPath(): string {
    return this.node.path("root.pem");
  }

  private get authority(): string {
    return readFileSync(this.node.path("ca.pem"), "utf8");
  }

  /** What a booting node sets up for pods. */
  async prepareNetwork(): Promise<void> {
    // The bridge plugin forwards nothing by itself; the first pod's traffic to the node needs the node's sysctls.
    // Without duplicate address detection: the bridge's IPv6 address would answer nobody for two seconds.
    const sysctls = ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv6.conf.default.accept_dad=0"];
    await this.node.run(["sysctl", "-qw", ...sysctls, "net.ipv6.conf.all.accept_dad=0"], { timeoutMs: 5000 });
  }

  /** Starts the agent in its jail; resolves when it is ready, or with `wait` false when it runs. `env`, `image`: this time only. */
  async startAgent(wait = true, env: Readonly<Record<string, string>> = {}, image?: AgentImage): Promise<void> {
    const log = createWriteStream(this.node.path("agent.log"), { flags: "a" });
    // Removed under us when the sandbox is interrupted.
    log.on("error", () => undefined);
    this.agentStarts += 1;
    this.daemonSet.putPod(this.name);
    const child = startJailed(this.node, {
      chart: this.chart,
      ...(image ?? builtFiles(this.options.program)),
      args: [],
      capabilities: this.options.agentCapabilities ?? [],
      env: {
        NODE_NAME: this.name,
        POD_NAME: agentPod(this.name),
        POD_NAMESPACE: SYSTEM_NAMESPACE,
        KUBERNETES_SERVICE_HOST: "127.0.0.1",
        KUBERNETES_SERVICE_PORT: String(this.api.port),
        ...this.options.agentEnv,
        ...env,
      },
    });
    this.agent = child;
    child.process.stdout?.pipe(log, { end: false });
    child.process.stderr?.pipe(log, { end: false });
    void child.exited.finally(() => log.end());
    await firstLine(child, "built");
    child.pinLeaf();
    this.agentNetns?.close();
    this.agentNetns = openNetns(`/proc/${child.leafPid()}/ns/net`);
    await this.openDoorway(this.agentNetnsPath);
    child.process.stdin?.end("go\n");
    if (!wait) return;
    await until(
      "the agent is ready",
      () => {
        if (!child.running) throw new Error("the agent ended");
        return this.view.ready();
      },
      30_000,
    ).catch((error: unknown) => {
      throw new Error(`${String(error)}\n${this.agentLog().split("\n").slice(-20).join("\n")}`);
    });
  }

  private async openDoorway(netnsPath: string): Promise<void> {
    try {
      this.doorways.push(await Doorway.open(netnsPath, this.api.port));
    } catch (error) {
      // With hostNetwork every agent has the node's netns, where the first one's doorway still is.
      if ((error as NodeJS.ErrnoException).code !== "EADDRINUSE") throw error;
    }
  }

  /** Held since its start: while an agent works in a pod's netns, its /proc/PID/ns/net leads there. */
  private get agentNetnsPath(): string {
    return `/proc/self/fd/${this.agentNetns?.fd}`;
  }

  agentLog(): string {
    const path = this.node.path("agent.log");
    return existsSync(path) ? readFileSync(path, "utf8") : "";
  }

  /**
   * Ends the agent as kubelet does (SIGTERM, and SIGKILL when the chart's grace period is over) or as the kernel
   * does (SIGKILL). Returns how many ms it took.
   */
  async endAgent(signal: "SIGTERM" | "SIGKILL"): Promise<number> {
    const child = this.agent;
    this.agent = undefined;
    if (child === undefined) return 0;
    const began = performance.now();
    if (signal === "SIGTERM") await child.end(this.chart.graceSeconds * 1000);
    else child.killProgram();
    await child.exited;
    return performance.now() - began;
  }

  /** Names all workloads that ztunnel may meet. A real ztunnel reads them once, at its start. */
  describeMesh(workloads: readonly MeshWorkload[], services: readonly MeshService[]): void {
    writeMeshConfig(this.node.path("mesh.yaml"), workloads, services);
  }

  startZtunnel(): ZtunnelProcess {
    const ztunnel = ZtunnelProcess.start(this.node, {
      binary: this.options.ztunnel,
      program: this.options.program,
      name: `ztunnel-${this.ztunnels.length}`,
      nodeName: this.name,
      meshPath: this.node.path("mesh.yaml"),
      authorityPath: this.node.path("ca.pem"),
      certificates: this.certificates && { port: this.certificates.port, rootPath: this.rootPath },
    });
    this.ztunnels.push(ztunnel);
    return ztunnel;
  }

  /** Text of the agent's /metrics; empty when nobody answers. */
  metrics(): Promise<string> {
    return this.view.metrics();
  }

  /** Waits until this many ztunnels have the agent's snapshot. */
  ztunnelsConnected(count: number): Promise<void> {
    return this.view.ztunnelsConnected(count);
  }

  /** The engine that pods get. */
  engine(): Promise<string> {
    return this.view.engine();
  }

  /** Sets a label of a namespace, or removes it (null), as `kubectl label` does. */
  label(namespace: string, key: string, value: string | null): void {
    const current = this.api.get("Namespace", undefined, namespace);
    const { [key]: _old, ...rest } = current?.metadata.labels ?? {};
    const labels = value === null ? rest : { ...rest, [key]: value };
    this.api.put({ ...current, kind: "Namespace", metadata: { ...current?.metadata, name: namespace, labels } });
  }

  annotation(namespace: string, pod: string, key: string): string | undefined {
    return this.api.get("Pod", namespace, pod)?.metadata.annotations?.[key];
  }

  /** Files of the plugin and its configuration that are on the node now. */
  installed(): { readonly plugin: boolean; readonly conf: string } {
    return {
      plugin: readdirSync(this.node.path("opt/cni/bin")).includes("istio-cni"),
      conf: readFileSync(this.confPath, "utf8"),
    };
  }

  /** Ends and removes everything. Safe at any time, and more than once. */
  stop(): Promise<void> {
    this.stopping ??= this.end();
    return this.stopping;
  }

  private async end(): Promise<void> {
    for (const doorway of this.doorways.splice(0)) doorway.close();
    this.agentNetns?.close();
    await this.node.kill();
    this.certificates?.close();
    if (this.options.joins === undefined) await this.api.close();
    // Last: whoever still works beside this must not make files again.
    await this.node.remove();
  }
}
