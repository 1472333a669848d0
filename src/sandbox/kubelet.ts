// SPDX-License-Identifier: Apache-2.0
import { randomBytes } from "node:crypto";
import { recordOf } from "../kube/json.ts";
import type { Child } from "../sys/child.ts";
import type { ApiServer } from "./apiserver/api-server.ts";
import { AppRemote } from "./app/remote.ts";
import { type Attachment, CniChain } from "./cni-chain.ts";
import type { SandboxNode } from "./node.ts";

export const NODE_NAME = "node1";

export interface PodTemplate {
  readonly name: string;
  readonly namespace: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly serviceAccount?: string;
  /** `app` (default) serves and obeys; `sleep` only lives. */
  readonly program?: "app" | "sleep";
}

/** A pod that runs on the sandbox's node. */
export interface RunningPod {
  readonly name: string;
  readonly namespace: string;
  readonly uid: string;
  readonly ips: readonly string[];
  readonly attachment: Attachment;
  readonly child: Child;
  readonly app: AppRemote | undefined;
}

/** First address of a family. @throws Error when the pod has none. */
export function ipOf(pod: RunningPod, family: 4 | 6): string {
  const ip = pod.ips.find((address) => address.includes(":") === (family === 6));
  if (ip === undefined) throw new Error(`pod ${pod.name} has no IPv${family} address`);
  return ip;
}

/**
 * As much of a kubelet and a container runtime as a node agent can notice: sandbox netns, CNI chain,
 * a process in a pod's cgroup, status updates, and the way back.
 */
export class Kubelet {
  readonly pods = new Map<string, RunningPod>();
  private readonly chain: CniChain;

  constructor(
    private readonly node: SandboxNode,
    private readonly api: ApiServer,
    private readonly program: string,
    confPath: string,
  ) {
    this.chain = new CniChain(confPath, {
      binDirs: [node.path("opt/cni/bin"), "/usr/lib/cni", "/opt/cni/bin"],
      wrap: (argv) => node.enter(argv),
    });
  }

  /**
   * Creates and starts a pod. @throws CniPluginError when a plugin refuses; the pod then stays Pending
   * in the API, its sandbox is gone, and `start` may be called again as kubelet would.
   */
  async run(template: PodTemplate): Promise<RunningPod> {
    this.create(template);
    return this.start(template);
  }

  /** Puts the pod into the API, scheduled to this node. */
  create(template: PodTemplate): void {
    const { name, namespace, labels = {}, annotations = {}, serviceAccount = "default" } = template;
    this.api.put({
      kind: "Pod",
      metadata: { name, namespace, labels, annotations },
      spec: {
        nodeName: NODE_NAME,
        serviceAccountName: serviceAccount,
        containers: [{ name: "app", image: "sandbox/app" }],
      },
      status: { phase: "Pending" },
    });
  }

  /** Schedules a pod that somebody else put into the API to this node. */
  adopt(namespace: string, name: string): void {
    const pod = this.api.get("Pod", namespace, name);
    if (pod === undefined) throw new Error(`no pod ${namespace}/${name} in the API`);
    const spec = { serviceAccountName: "default", ...recordOf(pod.spec), nodeName: NODE_NAME };
    this.api.put({ ...pod, spec, status: { phase: "Pending" } });
  }

  /** Starts a pod that is in the API: sandbox, network, process, status. */
  async start(template: PodTemplate): Promise<RunningPod> {
    const { name, namespace } = template;
    const uid = this.uidOf(namespace, name);
    const attachment = await this.makeSandbox(namespace, name, uid);
    let ips: readonly string[];
    try {
      ({ ips } = await this.chain.add(attachment));
    } catch (error) {
      await this.dropSandbox(attachment).catch(() => undefined);
      throw error;
    }
    const pod = await this.startProcess(template, uid, attachment, ips);
    this.pods.set(`${namespace}/${name}`, pod);
    this.report(pod, "Running");
    return pod;
  }

  /** Replaces the pod's sandbox under its uid, as kubelet does when the pause container dies. */
  async replaceSandbox(pod: RunningPod, template: PodTemplate): Promise<RunningPod> {
    await pod.child.end(500);
    await this.dropSandbox(pod.attachment);
    return this.start(template);
  }

  /** Stops the pod and removes it from the API, in kubelet's order. */
  async remove(pod: RunningPod): Promise<void> {
    await pod.child.end(500);
    await this.dropSandbox(pod.attachment);
    await this.node.cgroups.removePod(pod.uid);
    this.pods.delete(`${pod.namespace}/${pod.name}`);
    this.api.delete("Pod", pod.namespace, pod.name);
  }

  private uidOf(namespace: string, name: string): string {
    const uid = this.api.get("Pod", namespace, name)?.metadata.uid;
    if (uid === undefined) throw new Error(`no pod ${namespace}/${name} in the API`);
    return uid;
  }

  private async makeSandbox(namespace: string, name: string, uid: string): Promise<Attachment> {
    const containerId = randomBytes(32).toString("hex");
    const netnsName = `cni-${containerId.slice(0, 12)}`;
    await this.node.run(["ip", "netns", "add", netnsName], { timeoutMs: 5000 });
    await this.node.run(["ip", "-n", netnsName, "link", "set", "lo", "up"], { timeoutMs: 5000 });
    const netns = `/var/run/netns/${netnsName}`;
    return { containerId, netns, ifName: "eth0", pod: { namespace, name, uid } };
  }

  private async dropSandbox(attachment: Attachment): Promise<void> {
    try {
      await this.chain.del(attachment);
    } finally {
      const name = attachment.netns.slice(attachment.netns.lastIndexOf("/") + 1);
      await this.node.run(["ip", "netns", "del", name], { timeoutMs: 5000 });
    }
  }

  private async startProcess(
    template: PodTemplate,
    uid: string,
    attachment: Attachment,
    ips: readonly string[],
  ): Promise<RunningPod> {
    const { name, namespace, program = "app" } = template;
    const cgroup = this.node.cgroups.container(uid, attachment.containerId);
    const command = program === "app" ? [process.execPath, this.program, "sandbox-app", name] : ["sleep", "infinity"];
    const child = this.node.spawn(["nsenter", `--net=${attachment.netns}`, "--", ...command], {
      stdio: ["pipe", "pipe", "inherit"],
      cgroup,
    });
    const app = program === "app" ? new AppRemote(child) : undefined;
    if (app !== undefined) await app.ready;
    return { name, namespace, uid, ips, attachment, child, app };
  }

  private report(pod: RunningPod, phase: string): void {
    const current = this.api.get("Pod", pod.namespace, pod.name);
    if (current === undefined) return;
    const podIPs = pod.ips.map((ip) => ({ ip }));
    this.api.put({
      ...current,
      status: {
        phase,
        podIP: pod.ips[0],
        podIPs,
        containerStatuses: [
          { name: "app", containerID: `containerd://${pod.attachment.containerId}`, ready: true, restartCount: 0 },
        ],
      },
    });
  }
}
