// SPDX-License-Identifier: Apache-2.0
// Renders the Helm chart into test/fixtures/chart. Helm is on no machine that tests run on, so the rendered
// manifests are kept, each with the digest of what it was made from; test/unit/chart compares that.
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { pathToFileURL } from "node:url";

const ROOT = join(import.meta.dirname, "..");
export const CHART_DIR = join(ROOT, "install/chart");
export const FIXTURE_DIR = join(ROOT, "test/fixtures/chart");

/** One way of installing the chart. */
export interface ChartCase {
  readonly values?: Readonly<Record<string, unknown>>;
  readonly kubeVersion?: string;
}

const platform = (name: string): ChartCase => ({ values: { global: { platform: name } } });

export const CASES: Readonly<Record<string, ChartCase>> = {
  default: {},
  "platform-aks": platform("aks"),
  "platform-bottlerocket": platform("bottlerocket"),
  "platform-eks": platform("eks"),
  "platform-gke": platform("gke"),
  "platform-k3d": platform("k3d"),
  "platform-k3s": platform("k3s"),
  "platform-kind": platform("kind"),
  "platform-microk8s": platform("microk8s"),
  "platform-minikube": platform("minikube"),
  "platform-openshift": platform("openshift"),
  "platform-talos": platform("talos"),
  // Helm tells which cluster it is by its version.
  "gke-by-version": { kubeVersion: "v1.31.4-gke.1256000" },
  // Before AppArmor was a field of the pod.
  "kubernetes-1.29": { kubeVersion: "v1.29.0" },
  "host-network": { values: { ambient: { shareHostNetworkNamespace: true } } },
  "ambient-off": { values: { ambient: { enabled: false } } },
  "delete-pods": { values: { repair: { repairPods: false, deletePods: true } } },
  // The first of the three that is on is what is done.
  "repair-and-delete-pods": { values: { repair: { deletePods: true } } },
  "no-bpffs": { values: { bpffs: { mount: false } } },
  "cluster-scope": { values: { global: { resourceScope: "cluster" } } },
  "namespace-scope": { values: { global: { resourceScope: "namespace" } } },
  // A file as for istioctl, and values that beat their platform's.
  "below-cni": {
    values: {
      profile: "ambient",
      meshConfig: { accessLogFile: "/dev/stdout" },
      global: { platform: "openshift", hub: "docker.io/istio", tag: "1.30.3" },
      cni: {
        chained: true,
        provider: "default",
        cniConfDir: "/etc/cni/net.d",
        ambient: { dnsCapture: false },
        env: { AMBIENT_CNI_ENGINE: "nftables", AMBIENT_IPV6: false, AMBIENT_CNI_DRAIN_SECONDS: 30 },
      },
    },
  },
  everything: {
    values: {
      image: "ambient-cni",
      hub: "registry.example",
      tag: "1.2.3",
      variant: "debug",
      pullPolicy: "Always",
      cniConfFileName: "10-calico.conflist",
      istioOwnedCNIConfig: true,
      istioOwnedCNIConfigFileName: "01-istio.conflist",
      excludeNamespaces: ["kube-system", "monitoring"],
      repair: { repairPods: false, labelPods: true },
      logging: { level: "debug" },
      resources: { limits: { cpu: "1", memory: "256Mi" } },
      resourceQuotas: { enabled: true, pods: 100 },
      affinity: {
        nodeAffinity: {
          requiredDuringSchedulingIgnoredDuringExecution: {
            nodeSelectorTerms: [{ matchExpressions: [{ key: "mesh", operator: "NotIn", values: ["no"] }] }],
          },
        },
      },
      updateStrategy: { type: "OnDelete", rollingUpdate: null },
      terminationGracePeriodSeconds: 60,
      podLabels: { team: "mesh" },
      podAnnotations: { "example.com/note": "yes" },
      daemonSetLabels: { tier: "node" },
      seccompProfile: { type: "RuntimeDefault" },
      seLinuxOptions: { level: "s0" },
      revision: "canary",
      ownerName: "mesh-team",
      global: {
        imagePullSecrets: ["registry-key"],
        logAsJson: true,
        networkPolicy: { enabled: true },
        nativeNftables: true,
      },
    },
  },
};

const IMAGE = "registry.example/ambient-cni:0.1.0";

/** The arguments of helm for a case, with paths relative to the repository; its values come by stdin. */
function helmArguments({ kubeVersion = "v1.31.0" }: ChartCase): string[] {
  return ["template", "istio-cni", "install/chart", "-n", "istio-system", "--kube-version", kubeVersion, "-f", "-"];
}

function helmInput({ values }: ChartCase): string {
  return JSON.stringify({ image: IMAGE, ...values });
}

/** Of everything that a case is rendered from. */
export function sourceDigest(one: ChartCase): string {
  const hash = createHash("sha256").update(JSON.stringify([helmArguments(one), helmInput(one)]));
  for (const path of filesBelow(CHART_DIR)) {
    hash.update(`\n${relative(CHART_DIR, path)}\n`).update(readFileSync(path));
  }
  return hash.digest("hex");
}

function filesBelow(directory: string): string[] {
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
}

function render(helm: string): void {
  const rendered = Object.entries(CASES).map(([name, one]) => {
    const [args, input] = [helmArguments(one), helmInput(one)];
    const manifests = execFileSync(helm, args, { cwd: ROOT, input, encoding: "utf8" });
    const head = [
      "# Made by `npm run render:chart`, which needs Helm; not to be edited.",
      `# echo '${input}' | helm ${args.join(" ")}`,
      `# sources: ${sourceDigest(one)}`,
    ];
    return { name, text: `${head.join("\n")}\n${manifests}` };
  });
  rmSync(FIXTURE_DIR, { recursive: true, force: true });
  mkdirSync(FIXTURE_DIR, { recursive: true });
  for (const { name, text } of rendered) writeFileSync(join(FIXTURE_DIR, `${name}.yaml`), text);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) render(process.env.HELM ?? "helm");
