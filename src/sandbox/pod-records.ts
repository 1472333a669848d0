// SPDX-License-Identifier: Apache-2.0
import { recordOf } from "../kube/json.ts";
import type { ApiServer } from "./apiserver/api-server.ts";
import { INJECTED } from "./sidecar/pod.ts";

/** The first node of every cluster. */
export const NODE_NAME = "node1";

/** What a pod is asked to be. */
export interface PodRequest {
  readonly name: string;
  readonly namespace: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly serviceAccount?: string;
  /** As the injector leaves it where the CNI plugin writes the redirection. */
  readonly sidecar?: boolean;
}

/** A pod as far as its status tells. */
export interface PodOnNode {
  readonly name: string;
  readonly namespace: string;
  readonly uid: string;
  readonly ips: readonly string[];
}

/** First address of a family. @throws Error when the pod has none. */
export function ipOf(pod: PodOnNode, family: 4 | 6): string {
  const ip = pod.ips.find((address) => address.includes(":") === (family === 6));
  if (ip === undefined) throw new Error(`pod ${pod.name} has no IPv${family} address`);
  return ip;
}

/** The API server's side of a kubelet: pods appear, run and go. */
export class PodRecords {
  constructor(
    private readonly api: ApiServer,
    private readonly nodeName: string = NODE_NAME,
  ) {}

  /** Puts the pod into the API, scheduled to this node. */
  create(request: PodRequest): void {
    const { name, namespace, labels = {}, annotations = {}, serviceAccount = "default" } = request;
    const injected = request.sidecar === true ? INJECTED : undefined;
    this.api.put({
      kind: "Pod",
      metadata: { name, namespace, labels, annotations: { ...injected?.annotations, ...annotations } },
      spec: {
        nodeName: this.nodeName,
        serviceAccountName: serviceAccount,
        containers: [{ name: "app", image: "sandbox/app" }, ...(injected?.containers ?? [])],
        ...(injected === undefined ? {} : { initContainers: injected.initContainers }),
      },
      status: { phase: "Pending" },
    });
  }

  /** Schedules a pod that somebody else put into the API to this node. */
  adopt(namespace: string, name: string): void {
    const pod = this.api.get("Pod", namespace, name);
    if (pod === undefined) throw new Error(`no pod ${namespace}/${name} in the API`);
    const spec = { serviceAccountName: "default", ...recordOf(pod.spec), nodeName: this.nodeName };
    this.api.put({ ...pod, spec, status: { phase: "Pending" } });
  }

  uidOf(namespace: string, name: string): string {
    const uid = this.api.get("Pod", namespace, name)?.metadata.uid;
    if (uid === undefined) throw new Error(`no pod ${namespace}/${name} in the API`);
    return uid;
  }

  has(namespace: string, name: string): boolean {
    return this.api.get("Pod", namespace, name) !== undefined;
  }

  exists({ namespace, name, uid }: PodOnNode): boolean {
    return this.api.get("Pod", namespace, name)?.metadata.uid === uid;
  }

  /** Reports a pod's phase and addresses; one that was deleted meanwhile stays deleted. */
  report(pod: PodOnNode, containerId: string, phase: string): void {
    const current = this.api.get("Pod", pod.namespace, pod.name);
    if (current === undefined) return;
    const podIPs = pod.ips.map((ip) => ({ ip }));
    this.api.put({
      ...current,
      status: {
        phase,
        podIP: pod.ips[0],
        podIPs,
        containerStatuses: [{ name: "app", containerID: `containerd://${containerId}`, ready: true, restartCount: 0 }],
      },
    });
  }

  /** Reports that the pod waits for its check, which has just failed. */
  reportFailedCheck(pod: PodOnNode, exitCode: number): void {
    const current = this.api.get("Pod", pod.namespace, pod.name);
    if (current === undefined) return;
    const [check] = INJECTED.initContainers;
    this.api.put({
      ...current,
      status: {
        phase: "Pending",
        podIP: pod.ips[0],
        podIPs: pod.ips.map((ip) => ({ ip })),
        initContainerStatuses: [
          {
            name: check.name,
            state: { waiting: { reason: "CrashLoopBackOff" } },
            lastState: { terminated: { exitCode, reason: "Error" } },
          },
        ],
      },
    });
  }

  delete({ namespace, name }: PodOnNode): void {
    this.api.delete("Pod", namespace, name);
  }
}
