// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from "node:fs";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { ApiServer } from "../../../src/sandbox/apiserver/api-server.ts";
import type { Exchange } from "../../../src/sandbox/app/protocol.ts";
import type { SandboxNode } from "../../../src/sandbox/node.ts";
import { ipOf, type PodOnNode, PodRecords, type PodRequest } from "../../../src/sandbox/pod-records.ts";
import { until } from "../../../src/sandbox/until.ts";
import type { ContainerConfigSchema, NamespaceOptionSchema, PodSandboxConfigSchema } from "../gen/cri_pb.ts";
import { ContainerState, NamespaceMode } from "../gen/cri_pb.ts";
import type { Containerd } from "./containerd.ts";
import { CriError } from "./cri.ts";
import { CheckFailed, PROXY, sidecarContainer, VALIDATION } from "./cri-sidecar.ts";
import { POD_IMAGE } from "./images.ts";

export const POD_PORT = 8080;

export type SandboxConfig = MessageInitShape<typeof PodSandboxConfigSchema>;
export type ContainerConfig = MessageInitShape<typeof ContainerConfigSchema>;

type PodIdentity = Pick<PodOnNode, "namespace" | "name" | "uid">;

/** What kubelet derives from a pod's spec. */
interface SandboxChoices {
  readonly qos: "besteffort" | "burstable";
  readonly namespaces: MessageInitShape<typeof NamespaceOptionSchema>;
}

/** A pod of one container that runs /pod. */
export interface CriPodRequest extends PodRequest {
  /** /pod's arguments; default: it serves under its name. */
  readonly args?: readonly string[];
}

export interface CriPod extends PodOnNode {
  readonly config: SandboxConfig;
  readonly sandboxId: string;
  readonly containerId: string;
}

/** What one connection from inside a pod came to. */
export type Outcome = Omit<Exchange, "milliseconds"> | { readonly failed: string; readonly code: string };

/** True when somebody answered. */
export function answered(outcome: Outcome): outcome is Omit<Exchange, "milliseconds"> {
  return "server" in outcome;
}

/** Kubelet asks again after a failure; it begins with a second, the tests have less time. */
const RETRY_MS = 200;
const EXEC_SECONDS = 20n;
const STOP_SECONDS = 10n;

/** kubelet's part in a pod's life, as a container runtime sees it. */
export class CriKubelet {
  /** Of every pod that there has been. */
  readonly uids = new Set<string>();
  readonly records: PodRecords;
  private attempts = 0;

  constructor(
    private readonly node: SandboxNode,
    api: ApiServer,
    private readonly containerd: Containerd,
    /** Told between a pod's sandbox and its first container: the mesh learns of it from here. */
    private readonly networked: (pod: PodOnNode, serviceAccount: string) => void,
  ) {
    this.records = new PodRecords(api);
  }

  /** Creates a pod and makes one attempt to start it. @throws CriError of the step that failed */
  async run(request: CriPodRequest): Promise<CriPod> {
    this.records.create(request);
    return this.start(request);
  }

  /** One attempt to start a pod that is in the API. @throws CriError; `startInTime` discards what is left of it */
  async start(request: CriPodRequest): Promise<CriPod> {
    const { namespace, name, serviceAccount = "default", args = ["serve", name] } = request;
    const uid = this.records.uidOf(namespace, name);
    this.uids.add(uid);
    const config = this.sandboxConfig(namespace, name, uid);
    const { cri } = this.containerd;
    const { podSandboxId: sandboxId } = await cri.call("runPodSandbox", { config });
    const ips = await this.addresses(sandboxId);
    this.networked({ namespace, name, uid, ips }, serviceAccount);
    if (request.sidecar === true) await this.startSidecar({ namespace, name, uid, ips }, sandboxId, config);
    const containerId = await this.runContainer(sandboxId, config, {
      // As kubelet counts: the name of one that a broken-off attempt has made stays reserved.
      metadata: { name: "app", attempt: config.metadata?.attempt ?? 0 },
      image: { image: POD_IMAGE },
      args: [...args],
      logPath: "app.log",
    });
    const pod = { name, namespace, uid, ips, config, sandboxId, containerId };
    this.records.report(pod, containerId, "Running");
    return pod;
  }

  /**
   * Asks again and again, as kubelet does, until the pod runs; `refused` is told each refusal.
   * @throws Error when it does not run within `ms`
   */
  async startInTime(
    request: CriPodRequest,
    ms: number,
    refused: (error: CriError) => void = () => {},
  ): Promise<CriPod> {
    const deadline = Date.now() + ms;
    for (;;) {
      try {
        await this.discard(this.records.uidOf(request.namespace, request.name));
        return await this.start(request);
      } catch (error) {
        if (!(error instanceof CriError) || Date.now() > deadline) throw error;
        refused(error);
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      }
    }
  }

  /** What injection adds to a pod: its check, and when that has passed its proxy. @throws CheckFailed */
  private async startSidecar(pod: PodOnNode, sandboxId: string, config: SandboxConfig): Promise<void> {
    const attempt = config.metadata?.attempt ?? 0;
    const checkId = await this.runContainer(sandboxId, config, sidecarContainer(VALIDATION, attempt));
    const exitCode = await this.exitOf(checkId);
    if (exitCode !== 0) {
      this.records.reportFailedCheck(pod, exitCode);
      throw new CheckFailed(exitCode, this.output(pod, VALIDATION.name));
    }
    await this.runContainer(sandboxId, config, sidecarContainer(PROXY, attempt));
    await until("the sidecar listens", () =>
      this.output(pod, PROXY.name).some((line) => line.includes('"event":"ready"')),
    );
  }

  /** Waits for the end of a container. */
  private async exitOf(containerId: string): Promise<number> {
    let exitCode = 0;
    await until("the container has ended", async () => {
      const { status } = await this.containerd.cri.call("containerStatus", { containerId });
      exitCode = status?.exitCode ?? 0;
      return status?.state === ContainerState.CONTAINER_EXITED;
    });
    return exitCode;
  }

  /** Removes sandboxes of attempts whose end nobody has heard. */
  private async discard(uid: string): Promise<void> {
    const { cri } = this.containerd;
    const { items } = await cri.call("listPodSandbox", {});
    for (const { id: podSandboxId } of items.filter(({ metadata }) => metadata?.uid === uid)) {
      await cri.call("stopPodSandbox", { podSandboxId });
      await cri.call("removePodSandbox", { podSandboxId });
    }
  }

  /** Ends the pod's container; its sandbox, network and log stay. */
  async stop(pod: CriPod): Promise<void> {
    await this.containerd.cri.call("stopContainer", { containerId: pod.containerId, timeout: STOP_SECONDS });
  }

  /** Stops the pod and removes it everywhere, in kubelet's order. */
  async remove(pod: CriPod): Promise<void> {
    const { cri } = this.containerd;
    await this.stop(pod);
    await cri.call("stopPodSandbox", { podSandboxId: pod.sandboxId });
    await cri.call("removePodSandbox", { podSandboxId: pod.sandboxId });
    await this.node.cgroups.removePod(pod.uid);
    this.records.delete(pod);
  }

  /** One connection from inside a pod to another's server. */
  connect(from: CriPod, to: PodOnNode, marker: string, family: 4 | 6 = 4): Promise<Outcome> {
    return this.connectTo(from, ipOf(to, family), POD_PORT, marker);
  }

  async connectTo(from: CriPod, address: string, port: number, marker: string): Promise<Outcome> {
    const { stdout, stderr } = await this.containerd.cri.call("execSync", {
      containerId: from.containerId,
      cmd: ["/pod", "connect", address, String(port), marker],
      timeout: EXEC_SECONDS,
    });
    const text = Buffer.from(stdout).toString();
    if (text === "") throw new Error(`/pod connect said nothing: ${Buffer.from(stderr).toString()}`);
    return JSON.parse(text) as Outcome;
  }

  /** The lines that a container of the pod has printed so far. */
  output(pod: PodIdentity, container = "app"): string[] {
    const text = readFileSync(this.logPath(pod, container), "utf8");
    // <time> stdout F <line>
    return text
      .split("\n")
      .slice(0, -1)
      .map((line) => line.split(" ").slice(3).join(" "));
  }

  /** A container's log, on this machine. */
  logPath(pod: PodIdentity, container: string): string {
    // The node's /var is an overlay; what it has written is here.
    return this.node.path(`disk${logDirectory(pod)}/${container}.log`);
  }

  /** Creates and starts a container in a sandbox. */
  async runContainer(podSandboxId: string, sandboxConfig: SandboxConfig, config: ContainerConfig): Promise<string> {
    const { cri } = this.containerd;
    const { containerId } = await cri.call("createContainer", { podSandboxId, sandboxConfig, config });
    await cri.call("startContainer", { containerId });
    return containerId;
  }

  /** The addresses of a sandbox. */
  async addresses(podSandboxId: string): Promise<string[]> {
    const { status } = await this.containerd.cri.call("podSandboxStatus", { podSandboxId });
    const network = status?.network;
    if (network === undefined) throw new Error(`sandbox ${podSandboxId} has no network`);
    return [network.ip, ...network.additionalIps.map(({ ip }) => ip)];
  }

  /** Path of a sandbox's network namespace on the node, below /run. */
  async netns({ sandboxId: podSandboxId }: Pick<CriPod, "sandboxId">): Promise<string> {
    const { info } = await this.containerd.cri.call("podSandboxStatus", { podSandboxId, verbose: true });
    const { runtimeSpec } = JSON.parse(info.info ?? "{}") as {
      runtimeSpec?: { linux: { namespaces: { type: string; path?: string }[] } };
    };
    const path = runtimeSpec?.linux.namespaces.find(({ type }) => type === "network")?.path;
    if (path === undefined) throw new Error(`containerd names no netns: ${info.info}`);
    return path.replace(/^\/var\/run\//, "/run/");
  }

  sandboxConfig(
    namespace: string,
    name: string,
    uid: string,
    { qos, namespaces }: SandboxChoices = { qos: "besteffort", namespaces: { pid: NamespaceMode.CONTAINER } },
  ): SandboxConfig {
    return {
      // A real kubelet counts per pod.
      metadata: { namespace, name, uid, attempt: this.attempts++ },
      hostname: name,
      logDirectory: logDirectory({ namespace, name, uid }),
      labels: {
        "io.kubernetes.pod.namespace": namespace,
        "io.kubernetes.pod.name": name,
        "io.kubernetes.pod.uid": uid,
      },
      linux: {
        cgroupParent: `/kubepods/${qos}/pod${uid}`,
        securityContext: { namespaceOptions: namespaces },
      },
    };
  }
}

function logDirectory({ namespace, name, uid }: PodIdentity): string {
  return `/var/log/pods/${namespace}_${name}_${uid}`;
}
