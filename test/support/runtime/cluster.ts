// SPDX-License-Identifier: Apache-2.0
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { Doorway } from "../../../src/sandbox/doorway.ts";
import type { MeshWorkload } from "../../../src/sandbox/mesh-config.ts";
import type { PodOnNode } from "../../../src/sandbox/pod-records.ts";
import { Sandbox } from "../../../src/sandbox/sandbox.ts";
import type { ZtunnelProcess } from "../../../src/sandbox/ztunnel-process.ts";
import { LABEL, leftovers, PROGRAM } from "../sandbox.ts";
import { AGENT_IMAGE, agentArchive } from "./agent-image.ts";
import { AgentPod, publishDaemonSet } from "./agent-pod.ts";
import type { AgentChart } from "./charts.ts";
import { Containerd, UNCHAINED } from "./containerd.ts";
import { CriKubelet } from "./cri-kubelet.ts";
import { TestImages } from "./images.ts";

export interface ClusterOptions {
  readonly chart: AgentChart;
  /** Further environment of the agent, as the chart's `env` values give it. */
  readonly env?: Readonly<Record<string, string>>;
  /** True: containerd also has the runtime handler UNCHAINED. */
  readonly unchained?: boolean;
}

/** A cluster of one node whose pods, the agent's among them, run in Debian's containerd. */
export class RuntimeCluster {
  readonly containerd: Containerd;
  readonly kubelet: CriKubelet;
  private current: AgentPod | undefined;
  private doorway: Doorway | undefined;
  private readonly workloads = new Map<string, MeshWorkload>();

  private constructor(
    readonly sandbox: Sandbox,
    private readonly options: ClusterOptions,
  ) {
    this.containerd = new Containerd(sandbox.node, options);
    this.kubelet = new CriKubelet(sandbox.node, sandbox.api, this.containerd, (pod, account) =>
      this.meet(pod, account),
    );
  }

  /** Brings up node, API server and containerd with all images; no agent, no ztunnel yet. */
  static async create(options: ClusterOptions): Promise<RuntimeCluster> {
    const sandbox = await Sandbox.create({
      program: PROGRAM,
      chart: "newest",
      ztunnel: undefined,
      node: { runtime: true },
    });
    const cluster = new RuntimeCluster(sandbox, options);
    try {
      sandbox.describeMesh([], []);
      await cluster.openDoorway();
      if (options.unchained === true) await cluster.copyPrimary(UNCHAINED.confDir);
      await cluster.containerd.start();
      using images = await TestImages.build();
      for (const archive of [...images.archives, agentArchive()]) await cluster.containerd.importImage(archive);
      return cluster;
    } catch (error) {
      await cluster.stop().catch(() => undefined);
      throw error;
    }
  }

  /** The agent's pod. @throws Error before `startAgent` */
  get agent(): AgentPod {
    if (this.current === undefined) throw new Error("no agent has been started");
    return this.current;
  }

  /** Makes a namespace, in the mesh or not. */
  namespace(name: string, mode: "ambient" | "none"): void {
    this.sandbox.api.put({ kind: "Namespace", metadata: { name, labels: { [LABEL]: mode } } });
  }

  /** The DaemonSet's pod comes up; resolves when it is ready, or with `wait` false when it runs. */
  async startAgent({ wait = true, image = AGENT_IMAGE } = {}): Promise<AgentPod> {
    this.current = await AgentPod.start(this, { ...this.options, image }, wait);
    return this.current;
  }

  /** A rolling update of the DaemonSet to the same image under another name. */
  async upgradeAgent(image: string): Promise<void> {
    await this.containerd.tagImage(AGENT_IMAGE, image);
    publishDaemonSet(this.sandbox.api, { ...this.options, image });
    await this.agent.remove();
    await this.startAgent({ image });
    await this.agent.view.ztunnelsConnected(1);
  }

  /** Starts a ztunnel; resolves when it has the agent's snapshot. */
  async startZtunnel(): Promise<ZtunnelProcess> {
    const ztunnel = this.sandbox.startZtunnel();
    await this.agent.view.ztunnelsConnected(1);
    return ztunnel;
  }

  /** Power off, power on: every process, netns, socket and /run are gone; disks and the API server are as they were. */
  async reboot(): Promise<void> {
    this.doorway?.close();
    await this.sandbox.node.kill();
    this.containerd.close();
    await this.sandbox.node.start();
    await this.sandbox.prepareNetwork();
    await this.openDoorway();
    await this.containerd.start();
  }

  /** What pods have left on the node: netns, addresses, ports of the bridge, cgroups, results of plugins. */
  podTraces(): string[] {
    const { node } = this.sandbox;
    const list = (path: string, pattern: RegExp) =>
      existsSync(path)
        ? readdirSync(path)
            .filter((name) => pattern.test(name))
            .map((name) => `${path}/${name}`)
        : [];
    return [
      ...list(`/proc/${node.pid}/root/run/netns`, /./),
      ...list(node.path("ipam/sandbox"), /^[0-9a-f]+[.:]/),
      ...list(node.path("disk/var/lib/cni/results"), /./),
      ...list(`/proc/${node.pid}/root/sys/class/net/cni0/brif`, /./),
      ...list(`${node.cgroups.root}/kubepods/besteffort`, new RegExp(`^pod(${[...this.kubelet.uids].join("|")})$`)),
    ];
  }

  /** What a failed test is told. */
  evidence(): string {
    const agent = this.current?.log().split("\n").slice(-25).join("\n") ?? "(none)";
    return `--- agent's last lines\n${agent}\n--- containerd's last lines\n${this.containerd.tail(5)}`;
  }

  /** Ends everything. @throws Error that names what is left on this machine */
  async stop(): Promise<void> {
    this.doorway?.close();
    await this.sandbox.stop();
    this.containerd.close();
    const left = [...leftovers(process.pid), ...processesOf(this.sandbox.node.dir), ...mountsOf(this.sandbox.node.dir)];
    if (left.length > 0) throw new Error(`left behind: ${left.join(", ")}`);
  }

  /** Pods reach the API server as they do in a cluster, over the node. */
  private async openDoorway(): Promise<void> {
    const { node, api } = this.sandbox;
    this.doorway = await Doorway.open(node.netnsPath, api.port, "0.0.0.0");
  }

  /** The primary CNI configuration, before anybody has chained into it, in another directory as well. */
  private async copyPrimary(directory: string): Promise<void> {
    const script = `mkdir -p ${directory} && cp /etc/cni/net.d/* ${directory}`;
    await this.sandbox.node.run(["sh", "-c", script], { timeoutMs: 5000 });
  }

  /** Makes a pod known to ztunnel. */
  private meet({ namespace, name, ips }: PodOnNode, serviceAccount: string): void {
    const inMesh = this.sandbox.api.get("Namespace", undefined, namespace)?.metadata.labels?.[LABEL] === "ambient";
    const protocol = inMesh ? "HBONE" : "TCP";
    this.workloads.set(`${namespace}/${name}`, { namespace, name, serviceAccount, ips, protocol });
    this.sandbox.describeMesh([...this.workloads.values()], []);
  }
}

/** Processes of this machine that a sandbox in `dir` started: by cgroup, or by what they were told. */
function processesOf(dir: string): string[] {
  const name = dir.slice(dir.lastIndexOf("/") + 1);
  return readdirSync("/proc")
    .filter((pid) => /^\d+$/.test(pid) && Number(pid) !== process.pid)
    .flatMap((pid) => {
      try {
        const [line = "", cgroup = "", status = ""] = ["cmdline", "cgroup", "status"].map((file) =>
          readFileSync(`/proc/${pid}/${file}`, "utf8"),
        );
        // A zombie has ended; when its new parent notices is that one's affair.
        if (!(line + cgroup).includes(name) || /^State:\s+Z/m.test(status)) return [];
        return [`process ${pid} (${status.split("\n", 1)[0]})`];
      } catch {
        return [];
      }
    });
}

function mountsOf(dir: string): string[] {
  return readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .filter((line) => line.includes(dir))
    .map((line) => `mount ${line}`);
}
