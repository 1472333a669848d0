// SPDX-License-Identifier: Apache-2.0
// Each platform's paths: those of upstream's profiles where upstream has one (istio-cni 1.31, helm-profiles).
import { expect, test } from "vitest";
import { RenderedChart } from "../../support/manifests.ts";

interface Platform {
  readonly bin: string;
  readonly conf: string;
  readonly netns: string;
}

const KUBEADM: Platform = { bin: "/opt/cni/bin", conf: "/etc/cni/net.d", netns: "/var/run/netns" };
const K3S_CONF = "/var/lib/rancher/k3s/agent/etc/cni/net.d";
const MICROK8S = "/var/snap/microk8s/current";

const PLATFORMS: Readonly<Record<string, Platform>> = {
  default: KUBEADM,
  "gke-by-version": { ...KUBEADM, bin: "/home/kubernetes/bin" },
  "platform-aks": KUBEADM,
  "platform-bottlerocket": KUBEADM,
  "platform-eks": KUBEADM,
  "platform-gke": { ...KUBEADM, bin: "/home/kubernetes/bin" },
  "platform-k3d": { ...KUBEADM, conf: K3S_CONF, bin: "/bin" },
  "platform-k3s": { ...KUBEADM, conf: K3S_CONF, bin: "/var/lib/rancher/k3s/data/cni" },
  "platform-kind": KUBEADM,
  "platform-microk8s": { ...KUBEADM, conf: `${MICROK8S}/args/cni-network`, bin: `${MICROK8S}/opt/cni/bin` },
  "platform-minikube": { ...KUBEADM, netns: "/var/run/docker/netns" },
  "platform-openshift": { ...KUBEADM, conf: "/etc/cni/multus/net.d", bin: "/var/lib/cni/bin" },
  "platform-talos": KUBEADM,
};

test.each(Object.entries(PLATFORMS))("%s", (name, paths) => {
  const chart = new RenderedChart(name);
  expect({
    bin: chart.hostPath("/host/opt/cni/bin"),
    conf: chart.hostPath("/host/etc/cni/net.d"),
    netns: chart.hostPath("/host/var/run/netns"),
  }).toEqual(paths);
});

const seLinux = (name: string) => new RenderedChart(name).container.securityContext?.seLinuxOptions;

test("OpenShift: in no chain, for Multus, as a privileged type, under the privileged constraints", () => {
  const chart = new RenderedChart("platform-openshift");
  expect(chart.environment()).toMatchObject({ CHAINED_CNI_PLUGIN: "false", CNI_CONF_NAME: "istio-cni.conf" });
  expect(chart.kinds()).toContain("NetworkAttachmentDefinition");
  expect(seLinux("platform-openshift")).toEqual({ type: "spc_t" });
  expect(chart.only("ClusterRole").rules).toContainEqual({
    apiGroups: ["security.openshift.io"],
    resources: ["securitycontextconstraints"],
    resourceNames: ["privileged"],
    verbs: ["use"],
  });
});

test("Bottlerocket has a type of its own for those who may write to the node", () => {
  expect(seLinux("platform-bottlerocket")).toEqual({ type: "control_t" });
  expect(seLinux("default")).toBeUndefined();
});

test("GKE admits pods of this priority by a quota", () => {
  for (const name of ["platform-gke", "gke-by-version"]) {
    expect(new RenderedChart(name).objects.find(({ kind }) => kind === "ResourceQuota")).toMatchObject({
      spec: {
        hard: { pods: "5000" },
        scopeSelector: {
          matchExpressions: [{ scopeName: "PriorityClass", operator: "In", values: ["system-node-critical"] }],
        },
      },
    });
  }
  expect(new RenderedChart("default").kinds()).not.toContain("ResourceQuota");
});
