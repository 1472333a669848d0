// SPDX-License-Identifier: Apache-2.0
// From a pod's manifest to what kubelet asks of a container runtime.
import { MountPropagation, NamespaceMode, SecurityProfile_ProfileType } from "../gen/cri_pb.ts";
import type { ContainerConfig } from "./cri-kubelet.ts";

/** The part of a pod's spec that the agent's charts use. */
export interface PodSpec {
  readonly hostNetwork?: boolean;
  readonly terminationGracePeriodSeconds?: number;
  readonly serviceAccountName?: string;
  readonly containers: readonly ContainerSpec[];
  readonly volumes: readonly {
    readonly name: string;
    readonly hostPath: { readonly path: string; readonly type?: string };
  }[];
}

export interface ContainerSpec {
  readonly name: string;
  readonly image: string;
  readonly command?: readonly string[];
  readonly args?: readonly string[];
  readonly envFrom?: readonly { readonly configMapRef: { readonly name: string } }[];
  readonly env?: readonly EnvironmentVariable[];
  readonly securityContext?: {
    readonly privileged?: boolean;
    readonly runAsUser?: number;
    readonly runAsGroup?: number;
    readonly capabilities?: { readonly add?: readonly string[]; readonly drop?: readonly string[] };
  };
  readonly resources?: { readonly limits?: { readonly memory?: string } };
  readonly volumeMounts: readonly {
    readonly name: string;
    readonly mountPath: string;
    readonly readOnly?: boolean;
    readonly mountPropagation?: string;
  }[];
}

interface EnvironmentVariable {
  readonly name: string;
  readonly value?: string;
  readonly valueFrom?: {
    readonly fieldRef?: { readonly fieldPath: string };
    readonly resourceFieldRef?: { readonly resource: string };
  };
}

/** What a spec refers to. */
export interface PodSurroundings {
  readonly configMaps: ReadonlyMap<string, Readonly<Record<string, string>>>;
  /** Values of `fieldRef`: `spec.nodeName`, `metadata.name` ... */
  readonly fields: Readonly<Record<string, string>>;
  /** What a container without a memory limit may use, in bytes. */
  readonly allocatableMemory: number;
  /** What kubelet adds by itself: how the API server is reached, and the service account's files on the node. */
  readonly kubelet: { readonly env: Readonly<Record<string, string>>; readonly serviceAccountDir: string };
}

/** procMount: Default. */
const MASKED = ["acpi", "asound", "kcore", "keys", "latency_stats", "sched_debug", "scsi", "timer_list", "timer_stats"];
const READ_ONLY = ["bus", "fs", "irq", "sys", "sysrq-trigger"];

const PROPAGATION: Readonly<Record<string, MountPropagation>> = {
  None: MountPropagation.PROPAGATION_PRIVATE,
  HostToContainer: MountPropagation.PROPAGATION_HOST_TO_CONTAINER,
  Bidirectional: MountPropagation.PROPAGATION_BIDIRECTIONAL,
};

/** @throws Error that names what is unknown: nothing of a manifest is left out silently */
export function containerConfig(
  pod: PodSpec,
  container: ContainerSpec,
  attempt: number,
  around: PodSurroundings,
): ContainerConfig {
  const { securityContext = {}, resources = {} } = container;
  const env = environment(container, around);
  return {
    metadata: { name: container.name, attempt },
    image: { image: container.image },
    command: [...(container.command ?? [])],
    args: [...(container.args ?? [])],
    envs: Object.entries(env).map(([key, value]) => ({ key, value })),
    mounts: [
      ...mounts(pod, container),
      {
        containerPath: "/var/run/secrets/kubernetes.io/serviceaccount",
        hostPath: around.kubelet.serviceAccountDir,
        readonly: true,
      },
    ],
    logPath: `${container.name}.log`,
    linux: {
      resources: { memoryLimitInBytes: BigInt(bytes(resources.limits?.memory ?? "0")) },
      securityContext: {
        privileged: securityContext.privileged ?? false,
        capabilities: {
          addCapabilities: [...(securityContext.capabilities?.add ?? [])],
          dropCapabilities: [...(securityContext.capabilities?.drop ?? [])],
        },
        namespaceOptions: namespaces(pod),
        runAsUser: { value: BigInt(securityContext.runAsUser ?? 0) },
        runAsGroup: { value: BigInt(securityContext.runAsGroup ?? 0) },
        maskedPaths: [...MASKED.map((name) => `/proc/${name}`), "/sys/firmware"],
        readonlyPaths: READ_ONLY.map((name) => `/proc/${name}`),
        seccomp: { profileType: SecurityProfile_ProfileType.Unconfined },
      },
    },
  };
}

/** Where the sandbox of a pod is in the network. */
export function namespaces(pod: PodSpec) {
  return {
    network: pod.hostNetwork === true ? NamespaceMode.NODE : NamespaceMode.POD,
    pid: NamespaceMode.CONTAINER,
  };
}

/** Directories of the node that kubelet makes for a pod. */
export function directoriesToMake(pod: PodSpec): string[] {
  return pod.volumes
    .filter(({ hostPath }) => hostPath.type === "DirectoryOrCreate")
    .map(({ hostPath }) => hostPath.path);
}

function environment(container: ContainerSpec, around: PodSurroundings): Record<string, string> {
  const env: Record<string, string> = { ...around.kubelet.env };
  for (const { configMapRef } of container.envFrom ?? []) {
    const values = around.configMaps.get(configMapRef.name);
    if (values === undefined) throw new Error(`no ConfigMap ${configMapRef.name}`);
    Object.assign(env, values);
  }
  for (const { name, value, valueFrom } of container.env ?? []) {
    env[name] = value ?? resolved(name, valueFrom, container, around);
  }
  return env;
}

function resolved(
  name: string,
  from: EnvironmentVariable["valueFrom"],
  container: ContainerSpec,
  around: PodSurroundings,
): string {
  const field = from?.fieldRef === undefined ? undefined : around.fields[from.fieldRef.fieldPath];
  if (field !== undefined) return field;
  if (from?.resourceFieldRef?.resource === "limits.memory") {
    const limit = container.resources?.limits?.memory;
    return String(limit === undefined ? around.allocatableMemory : bytes(limit));
  }
  throw new Error(`${name} comes from something unknown: ${JSON.stringify(from)}`);
}

function mounts(pod: PodSpec, container: ContainerSpec) {
  return container.volumeMounts.map(({ name, mountPath, readOnly = false, mountPropagation = "None" }) => {
    const volume = pod.volumes.find((one) => one.name === name);
    const propagation = PROPAGATION[mountPropagation];
    if (volume === undefined || propagation === undefined) throw new Error(`mount ${name}: no volume or propagation`);
    return { containerPath: mountPath, hostPath: volume.hostPath.path, readonly: readOnly, propagation };
  });
}

/** A Kubernetes quantity of bytes: `128Mi`, `1G`, `4096`. */
function bytes(quantity: string): number {
  const [, digits = "", unit = ""] = /^(\d+)([KMG]i?)?$/.exec(quantity) ?? [];
  if (digits === "") throw new Error(`no quantity of bytes: ${quantity}`);
  const exponent = " KMG".indexOf(unit.charAt(0) || " ");
  return Number(digits) * (unit.endsWith("i") ? 1024 : 1000) ** exponent;
}
