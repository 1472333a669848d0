// SPDX-License-Identifier: Apache-2.0
import { expect, test } from "vitest";
import { agentPodFromKube, daemonSetFromKube, nodeFromKube } from "../../../src/kube/own-objects.ts";

const daemonSet = (changes: object = {}, metadata: object = {}): Record<string, unknown> => ({
  apiVersion: "apps/v1",
  kind: "DaemonSet",
  metadata: { name: "istio-cni-node", namespace: "istio-system", uid: "u1", ...metadata },
  spec: {
    selector: {},
    template: { spec: { containers: [{ name: "install-cni", image: "x/y:1", args: [] }], ...changes } },
  },
});

test("a DaemonSet as the stock chart's, fields left out or null", () => {
  const plain = {
    uid: "u1",
    deleting: false,
    templateGeneration: undefined,
    containers: [{ name: "install-cni", image: "x/y:1" }],
    placement: { nodeName: undefined, nodeSelector: {}, required: undefined },
  };
  expect(daemonSetFromKube(daemonSet())).toEqual(plain);
  const nulls = { nodeName: null, nodeSelector: null, affinity: null };
  expect(daemonSetFromKube(daemonSet(nulls, { deletionTimestamp: null, annotations: null }))).toEqual(plain);
  expect(daemonSetFromKube(daemonSet({ affinity: { podAntiAffinity: {} } }))).toEqual(plain);
  expect(daemonSetFromKube(daemonSet({ affinity: { nodeAffinity: {} } }))).toEqual(plain);
});

test("placement, generation and deletion", () => {
  const terms = [
    {
      matchExpressions: [{ key: "zone", operator: "In", values: ["a"] }],
      matchFields: [{ key: "metadata.name", operator: "NotIn", values: ["n"] }],
    },
    { matchExpressions: [{ key: "gpu", operator: "DoesNotExist" }] },
  ];
  const spec = {
    nodeName: "node1",
    nodeSelector: { "kubernetes.io/os": "linux" },
    affinity: {
      nodeAffinity: {
        requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: terms },
        preferredDuringSchedulingIgnoredDuringExecution: [{ weight: 1, preference: {} }],
      },
    },
  };
  const metadata = {
    deletionTimestamp: "2026-01-01T00:00:00Z",
    annotations: { "deprecated.daemonset.template.generation": "7" },
  };
  expect(daemonSetFromKube(daemonSet(spec, metadata))).toMatchObject({
    deleting: true,
    templateGeneration: "7",
    placement: {
      nodeName: "node1",
      nodeSelector: { "kubernetes.io/os": "linux" },
      required: [
        {
          expressions: [{ key: "zone", operator: "In", values: ["a"] }],
          fields: [{ key: "metadata.name", operator: "NotIn", values: ["n"] }],
        },
        { expressions: [{ key: "gpu", operator: "DoesNotExist", values: [] }], fields: [] },
      ],
    },
  });
});

const affinity = (terms: unknown) => ({
  affinity: { nodeAffinity: { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: terms } } },
});

test.each<[string, unknown, string]>([
  ["no object", "null", "the document"],
  ["another kind", { ...daemonSet(), kind: "Status" }, "kind"],
  ["no uid", daemonSet({}, { uid: "" }), "metadata.uid"],
  ["no template", { ...daemonSet(), spec: {} }, "spec.template"],
  ["no containers", daemonSet({ containers: [] }), "containers"],
  ["a container without a name", daemonSet({ containers: [{ image: "x" }] }), "containers.0.name"],
  ["a nodeSelector that is no map of texts", daemonSet({ nodeSelector: { a: 1 } }), "nodeSelector"],
  [
    "an operator of tomorrow",
    daemonSet(affinity([{ matchExpressions: [{ key: "a", operator: "Near" }] }])),
    "operator",
  ],
  ["terms that are no list", daemonSet(affinity({})), "nodeSelectorTerms"],
  [
    "values that are no texts",
    daemonSet(affinity([{ matchExpressions: [{ key: "a", operator: "In", values: [1] }] }])),
    "values",
  ],
  ["a deletionTimestamp that is no text", daemonSet({}, { deletionTimestamp: 5 }), "deletionTimestamp"],
])("not believed: %s", (_why, object, field) => {
  expect(() => daemonSetFromKube(object)).toThrow(
    expect.objectContaining({ code: "KUBE_MALFORMED", message: expect.stringContaining(field) }),
  );
});

test("the agent's pod: only its controller is its owner", () => {
  const pod = {
    kind: "Pod",
    metadata: {
      name: "istio-cni-node-x",
      uid: "p",
      labels: { "pod-template-generation": "3" },
      ownerReferences: [
        { apiVersion: "v1", kind: "ConfigMap", name: "c" },
        { apiVersion: "apps/v1", kind: "DaemonSet", name: "istio-cni-node", uid: "u", controller: true },
      ],
    },
    spec: { nodeName: "node1", containers: [{ name: "c", image: "i" }], terminationGracePeriodSeconds: 30 },
  };
  expect(agentPodFromKube(pod)).toEqual({
    uid: "p",
    nodeName: "node1",
    containers: [{ name: "c", image: "i" }],
    owner: { kind: "DaemonSet", group: "apps", name: "istio-cni-node" },
    templateGeneration: "3",
    graceSeconds: 30,
  });
  const orphan = { ...pod, metadata: { name: "x", uid: "p" }, spec: { containers: pod.spec.containers } };
  expect(agentPodFromKube(orphan)).toMatchObject({ owner: undefined, graceSeconds: undefined, nodeName: "" });
  const negative = { ...pod, spec: { ...pod.spec, terminationGracePeriodSeconds: -1 } };
  expect(() => agentPodFromKube(negative)).toThrow("terminationGracePeriodSeconds");
});

test("a node's labels", () => {
  expect(nodeFromKube({ kind: "Node", metadata: { name: "n", uid: "u", labels: { a: "b" } } })).toEqual({
    name: "n",
    labels: { a: "b" },
  });
  expect(nodeFromKube({ kind: "Node", metadata: { name: "n", uid: "u" } }).labels).toEqual({});
  expect(() => nodeFromKube({ kind: "Node", metadata: { name: "n", uid: "u", labels: [] } })).toThrow("labels");
});
