// SPDX-License-Identifier: Apache-2.0
import { randomBytes } from "node:crypto";
import { mkdirSync, rmSync } from "node:fs";
import type { Child } from "../sys/child.ts";
import type { ApiServer } from "./apiserver/api-server.ts";
import { AppRemote } from "./app/remote.ts";
import { type Attachment, CniChain } from "./cni-chain.ts";
import type { SandboxNode } from "./node.ts";
import { type PodOnNode, PodRecords, type PodRequest } from "./pod-records.ts";
import { startSidecar } from "./sidecar/pod.ts";
import type { SidecarRemote } from "./sidecar/remote.ts";

export interface PodTemplate extends PodRequest {
  /** `app` (default) serves and obeys; `sleep` only lives. */
  readonly program?: "app" | "sleep";
}

/** A pod that runs on the sandbox's node. */
export interface RunningPod extends PodOnNode {
  readonly attachment: Attachment;
  readonly child: Child;
  readonly app: AppRemote | undefined;
  readonly sidecar: SidecarRemote | undefined;
  /** Programs beside `child`: of a pod with a sidecar, that and what keeps the pod's netns. */
  readonly helpers: readonly Child[];
}

/**
 * As much of a kubelet and a container runtime as a node agent can notice: sandbox netns, CNI chain,
 * a process in a pod's cgroup, status updates, and the way back.
 */
export class Kubelet {
  readonly pods = new Map<string, RunningPod>();
  readonly records: PodRecords;
  private readonly chain: CniChain;

  constructor(
    private readonly node: SandboxNode,
    api: ApiServer,
    private readonly program: string,
    confPath: string,
    nodeName?: string,
  ) {
    this.records = new PodRecords(api, nodeName);
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
    this.records.create(template);
    return this.start(template);
  }

  /** Starts a pod that is in the API: sandbox, network, process, status. */
  async start(template: PodTemplate): Promise<RunningPod> {
    const { name, namespace } = template;
    const uid = this.records.uidOf(namespace, name);
    mkdirSync(this.node.logDir(namespace, name, uid), { recursive: true });
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
    this.records.report(pod, attachment.containerId, "Running");
    return pod;
  }

  /** Replaces the pod's sandbox under its uid, as kubelet does when the pause container dies. */
  async replaceSandbox(pod: RunningPod, template: PodTemplate): Promise<RunningPod> {
    for (const child of [pod.child, ...pod.helpers]) await child.end(500);
    await this.dropSandbox(pod.attachment);
    return this.start(template);
  }

  /** Stops the pod and removes it from the API, in kubelet's order. */
  async remove(pod: RunningPod): Promise<void> {
    for (const child of [pod.child, ...pod.helpers]) await child.end(500);
    await this.dropSandbox(pod.attachment);
    await this.node.cgroups.removePod(pod.uid);
    rmSync(this.node.logDir(pod.namespace, pod.name, pod.uid), { recursive: true, force: true });
    this.pods.delete(`${pod.namespace}/${pod.name}`);
    this.records.delete(pod);
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
    const helpers: Child[] = [];
    const inPod = (command: readonly string[], stdin: "pipe" | "ignore") =>
      this.node.spawn(["nsenter", `--net=${attachment.netns}`, "--", ...command], {
        stdio: [stdin, "pipe", "inherit"],
        cgroup,
      });
    const ours = (args: readonly string[]) => [process.execPath, this.program, ...args];
    let sidecar: SidecarRemote | undefined;
    if (template.sidecar === true) {
      // A pause container: while the check fails again and again, the netns is known by it alone.
      helpers.push(inPod(["sleep", "infinity"], "ignore"));
      const pod = { name, namespace, uid, ips };
      try {
        sidecar = await startSidecar({
          spawn: (args) => inPod(ours(args), "ignore"),
          failed: (exitCode) => this.records.reportFailedCheck(pod, exitCode),
          cancelled: () => !this.records.exists(pod),
        });
      } catch (error) {
        for (const helper of helpers) await helper.end(500);
        throw error;
      }
      helpers.push(sidecar.child);
    }
    const child = inPod(program === "app" ? ours(["sandbox-app", name]) : ["sleep", "infinity"], "pipe");
    const app = program === "app" ? new AppRemote(child) : undefined;
    if (app !== undefined) await app.ready;
    return { name, namespace, uid, ips, attachment, child, helpers, app, sidecar };
  }
}
