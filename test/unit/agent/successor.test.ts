// SPDX-License-Identifier: Apache-2.0
// The decision whether anything is taken away when the agent ends, row by row.
import { expect, test } from "vitest";
import { type Answer, successorOf } from "../../../src/agent/successor.ts";
import type { AgentPod, DaemonSet, Successor } from "../../../src/core/daemonset.ts";
import type { NodeInfo } from "../../../src/core/placement.ts";

const OURS = "registry.example/ambient-cni:1.0.0";

const set = (changes: Partial<DaemonSet> = {}): Answer<DaemonSet> => ({
  found: {
    uid: "ds",
    deleting: false,
    templateGeneration: "2",
    containers: [{ name: "install-cni", image: OURS }],
    placement: { nodeName: undefined, nodeSelector: { pool: "mesh" }, required: undefined },
    ...changes,
  },
});
const pod = (changes: Partial<AgentPod> = {}): Answer<AgentPod> => ({
  found: {
    uid: "pod",
    nodeName: "node1",
    containers: [{ name: "install-cni", image: OURS }],
    owner: undefined,
    templateGeneration: "1",
    graceSeconds: 30,
    ...changes,
  },
});
const node = (labels: NodeInfo["labels"] = { pool: "mesh" }): Answer<NodeInfo> => ({
  found: { name: "node1", labels },
});
const images = (...list: string[]) => ({
  containers: list.map((image, index) => ({ name: index === 0 ? "install-cni" : `other-${index}`, image })),
});
const unknown = (why: string) => ({ unknown: why });
const absent = { found: undefined };
const upstream = set(images("docker.io/istio/install-cni:1.30.0"));

test.each<[string, Successor, Answer<DaemonSet>, Answer<AgentPod>, Answer<NodeInfo>]>([
  ["it stays as it is", "same", set(), pod(), node()],
  ["another tag", "same", set(images("registry.example/ambient-cni:2.0.0")), pod(), node()],
  ["a digest", "same", set(images("registry.example/ambient-cni@sha256:00")), pod(), node()],
  ["the DaemonSet is gone", "none", absent, pod(), node()],
  ["the DaemonSet is gone, nothing else is known", "none", absent, unknown("403"), unknown("403")],
  ["it is being deleted", "none", set({ deleting: true }), pod(), node()],
  [
    "it is being deleted, with another image",
    "none",
    set({ deleting: true, ...images("istio/install-cni") }),
    pod(),
    node(),
  ],
  ["the node lost its label", "none", set(), pod(), node({})],
  ["the node lost its label, with another image", "none", upstream, pod(), node({})],
  ["another image", "other", upstream, pod(), node()],
  ["another image, the node is not known", "other", upstream, pod(), unknown("timeout")],
  ["another registry", "other", set(images("mirror.example/ambient-cni:1.0.0")), pod(), node()],
  ["401 or 403", "same", unknown("403"), pod(), node()],
  ["401 or 403, and the node lost its label", "same", unknown("403"), pod(), node({})],
  ["no answer at all", "same", unknown("timeout"), unknown("timeout"), unknown("timeout")],
  ["the node is not known", "same", set(), pod(), unknown("timeout")],
  ["the node is gone", "same", set(), pod(), absent],
  ["the pod is not known", "same", upstream, unknown("timeout"), node()],
  ["the pod is gone", "same", upstream, absent, node()],
  [
    "made from this very template, its image rewritten by a webhook",
    "same",
    upstream,
    pod({ templateGeneration: "2" }),
    node(),
  ],
  [
    "no generations",
    "other",
    set({ templateGeneration: undefined, ...images("istio/install-cni") }),
    pod({ templateGeneration: undefined }),
    node(),
  ],
  [
    "ours among several containers",
    "other",
    set(images("istio/install-cni", OURS)),
    pod(images(OURS, "sidecar/x")),
    node(),
  ],
  ["ours among several, unchanged", "same", set(images(OURS, "sidecar/y")), pod(images(OURS, "sidecar/x")), node()],
  [
    "several containers, none by a name that is known",
    "same",
    set({
      containers: [
        { name: "a", image: "x/a" },
        { name: "b", image: "x/b" },
      ],
    }),
    pod(),
    node(),
  ],
  ["an image without a name", "same", set(images(":1.0")), pod(), node()],
])("%s: %s", (_why, successor, daemonSet, own, where) => {
  const answer = successorOf({ name: "istio-system/istio-cni-node", daemonSet, pod: own, node: where });
  expect(answer.successor, answer.reason).toBe(successor);
  expect(answer.reason).toContain("DaemonSet istio-system/istio-cni-node");
});

test("the reason names what was not known, or which image comes", () => {
  const of = (daemonSet: Answer<DaemonSet>, where: Answer<NodeInfo>) =>
    successorOf({ name: "a/b", daemonSet, pod: pod(), node: where }).reason;
  expect(of(unknown("GET x: 403"), node())).toContain("GET x: 403");
  expect(of(set(), unknown("no answer within 1 s"))).toContain("no answer within 1 s");
  expect(of(upstream, node())).toContain("docker.io/istio/install-cni:1.30.0");
  expect(of(set(), node({}))).toContain("pool=mesh");
});
