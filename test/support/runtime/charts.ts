// SPDX-License-Identifier: Apache-2.0
// The agent's DaemonSet by either chart.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseAllDocuments } from "yaml";
import type { KubeInput } from "../../../src/sandbox/apiserver/object.ts";
import { chart } from "../../../src/sandbox/charts.ts";
import type { PodSpec } from "./pod-spec.ts";

export interface AgentChart {
  readonly configMaps: ReadonlyMap<string, Readonly<Record<string, string>>>;
  readonly daemonSet: KubeInput;
  readonly template: {
    readonly metadata: {
      readonly labels?: Readonly<Record<string, string>>;
      readonly annotations?: Readonly<Record<string, string>>;
    };
    readonly spec: PodSpec;
  };
}

interface Manifest {
  readonly kind: string;
  readonly metadata: { readonly name: string };
  readonly data?: Readonly<Record<string, string>>;
  readonly spec?: { readonly template: AgentChart["template"] };
}

/** Our own chart with its default values, as rendered. */
export function ownChart(): AgentChart {
  const path = fileURLToPath(new URL("../../fixtures/chart/default.yaml", import.meta.url));
  const manifests = parseAllDocuments(readFileSync(path, "utf8")).map((one) => one.toJS() as Manifest);
  const ofKind = (wanted: string) => manifests.filter(({ kind }) => kind === wanted);
  const [daemonSet] = ofKind("DaemonSet");
  if (daemonSet?.spec === undefined) throw new Error(`${path} has no DaemonSet`);
  return {
    configMaps: new Map(ofKind("ConfigMap").map(({ metadata, data = {} }) => [metadata.name, data])),
    daemonSet: daemonSet as unknown as KubeInput,
    template: daemonSet.spec.template,
  };
}

const DIRECTORIES: readonly (readonly [name: string, mountPath: string, hostPath: string, type?: string])[] = [
  ["cni-bin-dir", "/host/opt/cni/bin", "/opt/cni/bin"],
  ["cni-host-procfs", "/host/proc", "/proc", "Directory"],
  ["cni-net-dir", "/host/etc/cni/net.d", "/etc/cni/net.d"],
  ["cni-socket-dir", "/var/run/istio-cni", "/var/run/istio-cni"],
  ["cni-netns-dir", "/host/var/run/netns", "/var/run/netns", "DirectoryOrCreate"],
  ["cni-ztunnel-sock-dir", "/var/run/ztunnel", "/var/run/ztunnel", "DirectoryOrCreate"],
];

export interface StockValues {
  /** `ambient.enabled` */
  readonly ambient: boolean;
  /** `repair.repairPods` */
  readonly repairPods: boolean;
}

/** What the chart mounts into its container: with nothing to repair and no ambient, nothing that shows a pod's netns. */
function isMounted(name: string, { ambient, repairPods }: StockValues): boolean {
  if (name === "cni-host-procfs") return ambient || repairPods;
  return ambient || (name !== "cni-netns-dir" && name !== "cni-ztunnel-sock-dir");
}

/** istio-cni's own chart of 1.31, by default in the ambient profile, with our image (packaging.md). */
export function stockChart(values: StockValues = { ambient: true, repairPods: true }): AgentChart {
  const { env, args } = chart("newest");
  const { GOMEMLIMIT: _limit, ...fixed } = env;
  const settings = {
    ...fixed,
    AMBIENT_ENABLED: String(values.ambient),
    REPAIR_REPAIR_PODS: String(values.repairPods),
  };
  const mounted = DIRECTORIES.filter(([name]) => isMounted(name, values));
  // The chart has this volume also where nothing mounts it.
  const volumes = DIRECTORIES.filter(([name]) => name === "cni-netns-dir" || isMounted(name, values));
  const fieldRef = (name: string, fieldPath: string) => ({ name, valueFrom: { fieldRef: { fieldPath } } });
  const template = {
    metadata: {
      labels: { "k8s-app": "istio-cni-node", "sidecar.istio.io/inject": "false", "istio.io/dataplane-mode": "none" },
    },
    spec: {
      serviceAccountName: "istio-cni",
      terminationGracePeriodSeconds: 30,
      containers: [
        {
          name: "install-cni",
          image: "hub/image:tag",
          command: ["install-cni"],
          args,
          envFrom: [{ configMapRef: { name: "istio-cni-config" } }],
          env: [
            fieldRef("NODE_NAME", "spec.nodeName"),
            fieldRef("REPAIR_NODE_NAME", "spec.nodeName"),
            fieldRef("POD_NAME", "metadata.name"),
            fieldRef("POD_NAMESPACE", "metadata.namespace"),
            { name: "GOMEMLIMIT", valueFrom: { resourceFieldRef: { resource: "limits.memory" } } },
          ],
          securityContext: {
            privileged: false,
            runAsUser: 0,
            runAsGroup: 0,
            capabilities: { drop: ["ALL"], add: ["NET_ADMIN", "NET_RAW", "SYS_PTRACE", "SYS_ADMIN", "DAC_OVERRIDE"] },
          },
          volumeMounts: mounted.map(([name, mountPath]) => ({
            name,
            mountPath,
            ...(name === "cni-host-procfs" ? { readOnly: true } : {}),
            ...(name === "cni-netns-dir" ? { mountPropagation: "HostToContainer" } : {}),
          })),
        },
      ],
      volumes: volumes.map(([name, , path, type = ""]) => ({ name, hostPath: { path, type } })),
    },
  };
  return {
    configMaps: new Map([["istio-cni-config", settings]]),
    daemonSet: {
      kind: "DaemonSet",
      metadata: { name: "istio-cni-node", namespace: "istio-system" },
      spec: { selector: { matchLabels: { "k8s-app": "istio-cni-node" } }, template },
    },
    template,
  };
}
