// SPDX-License-Identifier: Apache-2.0

export type PodPhase = "Pending" | "Running" | "Succeeded" | "Failed" | "Unknown";

/** Container istio-proxy, as far as it decides about the redirection into it. */
export interface SidecarProxy {
  /** Its securityContext's runAsUser and runAsGroup. */
  readonly uid: number | undefined;
  readonly gid: number | undefined;
  /** Word behind `proxy` in its arguments: `sidecar`, `router`; undefined when they begin otherwise. */
  readonly role: string | undefined;
  /** Those of its variables that are SIDECAR_ENV, as they are. */
  readonly env: Readonly<Record<string, string>>;
}

/** Of a pod with init containers that have failed, and are not known to have succeeded since. */
export interface InitFailures {
  readonly containers: readonly { readonly name: string; readonly exitCode: number; readonly message: string }[];
  /** What repair may select such pods by, besides the rest. */
  readonly restartPolicy: string;
  readonly schedulerName: string;
  readonly nominatedNodeName: string;
}

/** The few fields of a Kubernetes pod that we keep. Nothing else of the API object is cached. */
export interface Pod {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
  readonly nodeName: string;
  readonly serviceAccount: string;
  readonly labels: Readonly<Record<string, string>>;
  /** Only the annotations that decide something (see constants). */
  readonly annotations: Readonly<Record<string, string>>;
  readonly phase: PodPhase;
  /** Canonical addresses from status.podIPs (else podIP); empty until the runtime reported them. */
  readonly ips: readonly string[];
  readonly hostNetwork: boolean;
  readonly runtimeClass: string | undefined;
  /** Names of containers and init containers: they tell a sidecar from an opted-out pod. */
  readonly containers: readonly string[];
  readonly initContainers: readonly string[];
  /** Kept of injected pods only (annotation `sidecar.istio.io/status`). */
  readonly proxy: SidecarProxy | undefined;
  readonly initFailures: InitFailures | undefined;
  /** Container ids without their `containerd://` scheme: CRI-O cgroups carry no pod UID. */
  readonly containerIds: readonly string[];
  readonly resourceVersion: string;
  /** metadata.deletionTimestamp is set: kubelet takes its containers down. */
  readonly deleting: boolean;
  /** metadata.creationTimestamp, wall clock in ms. */
  readonly createdAt: number | undefined;
  /** spec.dnsPolicy and spec.dnsConfig.nameservers: together they say whom the pod asks for names. */
  readonly dnsPolicy: string;
  readonly dnsNameservers: readonly string[];
}

export interface Namespace {
  readonly uid: string;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly resourceVersion: string;
}

/** `namespace/name`, as people write a pod. */
export function podKey(pod: { readonly namespace: string; readonly name: string }): string {
  return `${pod.namespace}/${pod.name}`;
}

/** A pod in a terminal phase has no processes left and may share its address with a successor. */
export function isTerminal(pod: Pod): boolean {
  return pod.phase === "Succeeded" || pod.phase === "Failed";
}

/** A pod of which nothing is known but this. */
export function plainPod(known: Partial<Pod>): Pod {
  return {
    uid: "",
    namespace: "",
    name: "",
    nodeName: "",
    serviceAccount: "",
    labels: {},
    annotations: {},
    phase: "Pending",
    ips: [],
    hostNetwork: false,
    runtimeClass: undefined,
    containers: [],
    initContainers: [],
    proxy: undefined,
    initFailures: undefined,
    containerIds: [],
    resourceVersion: "",
    deleting: false,
    createdAt: undefined,
    dnsPolicy: "",
    dnsNameservers: [],
    ...known,
  };
}
