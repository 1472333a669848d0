// SPDX-License-Identifier: Apache-2.0
import { existsSync, readFileSync } from "node:fs";
import { recordOf } from "../../../src/kube/json.ts";
import { SYSTEM_NAMESPACE } from "../../../src/sandbox/accounts.ts";
import { AgentView } from "../../../src/sandbox/agent-view.ts";
import type { ApiServer } from "../../../src/sandbox/apiserver/api-server.ts";
import type { KubeObject } from "../../../src/sandbox/apiserver/object.ts";
import { nodeNetwork } from "../../../src/sandbox/network.ts";
import { NODE_NAME } from "../../../src/sandbox/pod-records.ts";
import type { Sandbox } from "../../../src/sandbox/sandbox.ts";
import { until } from "../../../src/sandbox/until.ts";
import { ContainerState } from "../gen/cri_pb.ts";
import type { AgentChart } from "./charts.ts";
import type { Containerd } from "./containerd.ts";
import type { CriKubelet, SandboxConfig } from "./cri-kubelet.ts";
import { type ContainerSpec, containerConfig, directoriesToMake, namespaces, type PodSpec } from "./pod-spec.ts";

export interface AgentPodParts {
  readonly sandbox: Sandbox;
  readonly containerd: Containerd;
  readonly kubelet: CriKubelet;
}

export interface AgentPodOptions {
  readonly chart: AgentChart;
  readonly image: string;
  /** Further environment, as the chart's `env` values give it. */
  readonly env?: Readonly<Record<string, string>>;
}

/** What a container without a limit may use, of a node with 8 GB. */
const ALLOCATABLE_BYTES = 8e9;
const READY_MS = 30_000;

let made = 0;

/** The chart is installed, or upgraded to another image: so far the pods on the nodes are what they were. */
export function publishDaemonSet(api: ApiServer, { chart, image }: AgentPodOptions): KubeObject {
  const { metadata, spec } = chart.template;
  const template = { metadata, spec: withImage(spec, image) };
  return api.put({ ...chart.daemonSet, spec: { ...recordOf(chart.daemonSet.spec), template } });
}

const withImage = (spec: PodSpec, image: string): PodSpec => ({
  ...spec,
  containers: spec.containers.map((container) => ({ ...container, image })),
});

/** The agent as its DaemonSet's pod in the container runtime, with exactly what the chart gives it. */
export class AgentPod {
  readonly name = `istio-cni-node-${String(made++).padStart(5, "0")}`;
  readonly view: AgentView;
  private sandboxId = "";
  private containerId = "";
  private uid = "";
  private restarts = 0;
  private config: SandboxConfig = {};

  private constructor(
    private readonly parts: AgentPodParts,
    private readonly options: AgentPodOptions,
  ) {
    this.view = new AgentView(() => this.netnsPath);
  }

  private netnsPath: string | undefined;

  /** The DaemonSet's controller and kubelet at work. @throws CriError; Error with the agent's last lines */
  static async start(parts: AgentPodParts, options: AgentPodOptions, wait = true): Promise<AgentPod> {
    const agent = new AgentPod(parts, options);
    await agent.create();
    await agent.startContainer();
    if (wait) await agent.ready();
    return agent;
  }

  /** Waits for /readyz. @throws Error with the agent's last lines */
  async ready(): Promise<void> {
    let said = "";
    await until(
      "the agent is ready",
      async () => {
        if (!(await this.running())) throw new Error("the agent's container has ended");
        const { status, body } = await this.view.readiness();
        said = body;
        return status === 200;
      },
      READY_MS,
    ).catch((error: unknown) => {
      throw new Error(`${String(error)}: ${said}\n${this.log().split("\n").slice(-30).join("\n")}`);
    });
  }

  async running(): Promise<boolean> {
    const { status } = await this.parts.containerd.cri.call("containerStatus", { containerId: this.containerId });
    return status?.state === ContainerState.CONTAINER_RUNNING;
  }

  /** A file of the agent's first process below /proc. */
  async proc(file: string): Promise<string> {
    const { containerd, sandbox } = this.parts;
    const { info } = await containerd.cri.call("containerStatus", { containerId: this.containerId, verbose: true });
    const { pid } = JSON.parse(info.info ?? "{}") as { pid?: number };
    return readFileSync(`/proc/${sandbox.node.pid}/root/proc/${pid}/${file}`, "utf8");
  }

  /** A file of the container's cgroup in the v1 hierarchy of this controller. */
  cgroupFile(controller: string, file: string): string {
    const { sandbox } = this.parts;
    const root = `/proc/${sandbox.node.pid}/root/sys/fs/cgroup/${controller}`;
    return readFileSync(`${root}${this.config.linux?.cgroupParent}/${this.containerId}/${file}`, "utf8").trim();
  }

  /** SIGTERM, then SIGKILL after `graceSeconds`; the pod and its sandbox stay. */
  async stopContainer(
    graceSeconds = this.options.chart.template.spec.terminationGracePeriodSeconds ?? 30,
  ): Promise<void> {
    const { cri } = this.parts.containerd;
    await cri.call("stopContainer", { containerId: this.containerId, timeout: BigInt(graceSeconds) });
  }

  /** A new container in the same sandbox, as kubelet does when the old one has ended. */
  async startContainer(): Promise<void> {
    const { kubelet } = this.parts;
    const [container] = this.options.chart.template.spec.containers;
    if (container === undefined) throw new Error("the chart's pod has no container");
    this.containerId = await kubelet.runContainer(this.sandboxId, this.config, this.container(container));
  }

  /** The pod is deleted: with the DaemonSet, or by a rolling update. */
  async remove(graceSeconds?: number): Promise<void> {
    const { containerd, sandbox } = this.parts;
    await this.stopContainer(graceSeconds);
    await containerd.cri.call("stopPodSandbox", { podSandboxId: this.sandboxId });
    await containerd.cri.call("removePodSandbox", { podSandboxId: this.sandboxId });
    await sandbox.node.cgroups.removePod(this.uid);
    sandbox.api.delete("Pod", SYSTEM_NAMESPACE, this.name);
  }

  /** All that its containers have printed. */
  log(): string {
    const path = this.parts.kubelet.logPath(
      { namespace: SYSTEM_NAMESPACE, name: this.name, uid: this.uid },
      "install-cni",
    );
    return existsSync(path) ? readFileSync(path, "utf8") : "";
  }

  private async create(): Promise<void> {
    const { sandbox, containerd, kubelet } = this.parts;
    const { spec } = this.options.chart.template;
    this.uid = this.schedule();
    await sandbox.node.run(["mkdir", "-p", "--", ...directoriesToMake(spec)], { timeoutMs: 5000 });
    this.config = kubelet.sandboxConfig(SYSTEM_NAMESPACE, this.name, this.uid, {
      qos: "burstable",
      namespaces: namespaces(spec),
    });
    const { podSandboxId } = await containerd.cri.call("runPodSandbox", { config: this.config });
    this.sandboxId = podSandboxId;
    this.netnsPath = await this.findNetns(spec.hostNetwork === true);
    const ips = spec.hostNetwork === true ? [nodeNetwork(0).gateway4] : await kubelet.addresses(podSandboxId);
    const pod = { namespace: SYSTEM_NAMESPACE, name: this.name, uid: this.uid, ips };
    kubelet.records.report(pod, podSandboxId, "Running");
  }

  /** Puts a pod of the DaemonSet's making into the API. Returns its uid. */
  private schedule(): string {
    const { api } = this.parts.sandbox;
    const { chart, image } = this.options;
    const { metadata, spec } = chart.template;
    const { name, uid } = publishDaemonSet(api, this.options).metadata;
    const owner = { apiVersion: "apps/v1", kind: "DaemonSet", controller: true, blockOwnerDeletion: true, name, uid };
    const pod = api.put({
      kind: "Pod",
      metadata: { ...metadata, namespace: SYSTEM_NAMESPACE, name: this.name, ownerReferences: [owner] },
      spec: { ...withImage(spec, image), nodeName: NODE_NAME },
      status: { phase: "Pending" },
    });
    return pod.metadata.uid;
  }

  private async findNetns(host: boolean): Promise<string> {
    const { node } = this.parts.sandbox;
    if (host) return node.netnsPath;
    return `/proc/${node.pid}/root${await this.parts.kubelet.netns({ sandboxId: this.sandboxId })}`;
  }

  private container(spec: ContainerSpec) {
    const { chart, image, env = {} } = this.options;
    const { sandbox } = this.parts;
    const extra = Object.entries(env).map(([name, value]) => ({ name, value }));
    return containerConfig(
      chart.template.spec,
      { ...spec, image, env: [...(spec.env ?? []), ...extra] },
      this.restarts++,
      {
        configMaps: chart.configMaps,
        fields: { "spec.nodeName": NODE_NAME, "metadata.name": this.name, "metadata.namespace": SYSTEM_NAMESPACE },
        allocatableMemory: ALLOCATABLE_BYTES,
        kubelet: {
          env: { KUBERNETES_SERVICE_HOST: nodeNetwork(0).gateway4, KUBERNETES_SERVICE_PORT: String(sandbox.api.port) },
          serviceAccountDir: sandbox.node.path("secrets"),
        },
      },
    );
  }
}
