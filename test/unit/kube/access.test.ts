// SPDX-License-Identifier: Apache-2.0
// What the agent may ask of the API server is what it asks: the server of these tests refuses anything else, and
// each permission is used by a call of KubeCluster, all of whose methods are called here.
import { expect, test } from "vitest";
import { AGENT_DAEMONSET } from "../../../src/core/constants.ts";
import type { PodEvent } from "../../../src/core/ports/cluster.ts";
import { DELETION, PERMISSIONS } from "../../../src/kube/access.ts";
import { KubeCluster } from "../../../src/kube/cluster.ts";
import { agentRules } from "../../../src/sandbox/apiserver/access.ts";
import { ClusterHarness } from "./cluster-harness.ts";
import { StepClock } from "./step-clock.ts";

const FAILED: PodEvent = { type: "Warning", reason: "AmbientEnrollmentFailed", message: "no ztunnel" };
const NAMESPACE = "istio-system";

/** Methods that ask the server. */
const ASKING: Readonly<Record<string, (h: ClusterHarness, clock: StepClock) => Promise<unknown>>> = {
  start: (h) => h.cluster.start(),
  readPod: (h) => h.cluster.readPod("shop", "a", AbortSignal.timeout(5000)),
  readAgentPod: (h) => h.cluster.readAgentPod(NAMESPACE, `${AGENT_DAEMONSET}-x1y2z`, AbortSignal.timeout(5000)),
  readDaemonSet: (h) => h.cluster.readDaemonSet(NAMESPACE, AGENT_DAEMONSET, AbortSignal.timeout(5000)),
  readNode: (h) => h.cluster.readNode("node1", AbortSignal.timeout(5000)),
  // Twice: of a pod that is there, and of one whose name another pod has now.
  annotate: async (h) => {
    expect(await h.cluster.annotate(h.pod("a"), "enabled")).toBe("patched");
    expect(await h.cluster.annotate({ ...h.pod("a"), uid: "gone" }, null)).toBe("gone");
  },
  labelBrokenPod: async (h) => {
    expect(await h.cluster.labelBrokenPod(h.pod("a"), "cni.istio.io/uninitialized", "true")).toBe("patched");
  },
  deleteBrokenPod: async (h) => {
    const pod = h.pod("deleted");
    const { resourceVersion = "" } = h.server.get("Pod", "shop", "deleted")?.metadata ?? {};
    expect(await h.cluster.deleteBrokenPod({ ...pod, resourceVersion })).toBe("deleted");
  },
  event: async (h, clock) => {
    const pod = h.pod("a");
    await h.cluster.event(pod, FAILED);
    clock.advance(60_000);
    await h.cluster.event(pod, FAILED);
  },
};

/** Methods that only look at what is cached, or end everything. */
const SILENT = [
  "pods",
  "planAnnotation",
  "pod",
  "podNamed",
  "namespace",
  "namespaces",
  "onPod",
  "onNamespace",
  "status",
  "stop",
  "synced",
];

test("no method of KubeCluster is missing here", () => {
  const methods = Object.getOwnPropertyNames(KubeCluster.prototype).filter((name) => name !== "constructor");
  expect(methods.sort()).toEqual([...Object.keys(ASKING), ...SILENT].sort());
});

test("what it may do is what it does", async () => {
  const clock = new StepClock();
  await using h = await ClusterHarness.create({ clock, rules: agentRules([DELETION]) });
  h.pod("a");
  h.server.put({ kind: "Namespace", metadata: { name: NAMESPACE } });
  const pod = { containers: [{ name: "install-cni", image: "i" }] };
  h.server.put({ kind: "Node", metadata: { name: "node1" } });
  h.server.put({ kind: "Pod", metadata: { name: `${AGENT_DAEMONSET}-x1y2z`, namespace: NAMESPACE }, spec: pod });
  h.server.put({
    kind: "DaemonSet",
    metadata: { name: AGENT_DAEMONSET, namespace: NAMESPACE },
    spec: { template: { spec: pod } },
  });
  for (const ask of Object.values(ASKING)) await ask(h, clock);

  const asked = new Set(
    h.server.requests.flatMap(({ target }) => {
      if (target === undefined) return [];
      const { verb, resource, subresource } = target;
      return [`${verb} ${resource.group}/${[resource.plural, subresource].filter(Boolean).join("/")}`];
    }),
  );
  const permitted = [...PERMISSIONS, DELETION].flatMap(({ verbs, group, resource }) =>
    verbs.map((verb) => `${verb} ${group}/${resource}`),
  );
  expect([...asked].sort()).toEqual([...permitted].sort());
  // All were answered: a refusal would have been told.
  expect(h.logger.lines.filter(({ level }) => level !== "info" && level !== "debug")).toEqual([]);
});

test("another DaemonSet is none of its business", async () => {
  await using h = await ClusterHarness.create();
  await expect(h.cluster.readDaemonSet(NAMESPACE, "ztunnel", AbortSignal.timeout(5000))).rejects.toThrow(
    `User "system:serviceaccount:istio-system:istio-cni" cannot get resource "daemonsets"`,
  );
});
