// SPDX-License-Identifier: Apache-2.0
import type { MeshWorkload } from "../../../src/sandbox/mesh-config.ts";
import type { PodOnNode } from "../../../src/sandbox/pod-records.ts";
import { Sandbox, type SandboxOptions } from "../../../src/sandbox/sandbox.ts";
import { LABEL, PROGRAM } from "../sandbox.ts";
import { Containerd } from "./containerd.ts";
import { CriKubelet } from "./cri-kubelet.ts";
import { TestImages } from "./images.ts";

/** A cluster of one node whose pods run in Debian's containerd. */
export class RuntimeCluster {
  readonly containerd: Containerd;
  readonly kubelet: CriKubelet;
  private readonly workloads = new Map<string, MeshWorkload>();

  private constructor(readonly sandbox: Sandbox) {
    this.containerd = new Containerd(sandbox.node);
    this.kubelet = new CriKubelet(sandbox.node, sandbox.api, this.containerd, (pod, account) =>
      this.meet(pod, account),
    );
  }

  /** Brings up node, API server and containerd with the tests' images; no agent, no ztunnel yet. */
  static async create(options: Partial<SandboxOptions> = {}): Promise<RuntimeCluster> {
    const sandbox = await Sandbox.create({
      program: PROGRAM,
      chart: "newest",
      ztunnel: undefined,
      ...options,
      node: { ...options.node, runtime: true },
    });
    try {
      const cluster = new RuntimeCluster(sandbox);
      sandbox.describeMesh([], []);
      await cluster.containerd.start();
      using images = await TestImages.build();
      for (const archive of images.archives) await cluster.containerd.importImage(archive);
      return cluster;
    } catch (error) {
      await sandbox.stop();
      throw error;
    }
  }

  /** Makes a namespace, in the mesh or not. */
  namespace(name: string, mode: "ambient" | "none"): void {
    this.sandbox.api.put({ kind: "Namespace", metadata: { name, labels: { [LABEL]: mode } } });
  }

  /** Ends everything. */
  async stop(): Promise<void> {
    await this.sandbox.stop();
    this.containerd.close();
  }

  /** Makes a pod known to ztunnel. */
  private meet({ namespace, name, ips }: PodOnNode, serviceAccount: string): void {
    const inMesh = this.sandbox.api.get("Namespace", undefined, namespace)?.metadata.labels?.[LABEL] === "ambient";
    const protocol = inMesh ? "HBONE" : "TCP";
    this.workloads.set(`${namespace}/${name}`, { namespace, name, serviceAccount, ips, protocol });
    this.sandbox.describeMesh([...this.workloads.values()], []);
  }
}
