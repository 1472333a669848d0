// SPDX-License-Identifier: Apache-2.0
// The question at the end, put to an API server that answers, refuses, lies or says nothing.
import { expect, test } from "vitest";
import { type SuccessionOptions, SuccessionQuestion } from "../../../src/agent/succession.ts";
import { systemClock } from "../../../src/core/clock.ts";
import type { Account } from "../../../src/sandbox/apiserver/access.ts";
import type { ApiRequest } from "../../../src/sandbox/apiserver/request.ts";
import type { Fault } from "../../fakes/apiserver.ts";
import { silent } from "../../fakes/parts.ts";
import { CHART_RULES, ClusterHarness } from "../kube/cluster-harness.ts";

const NAMESPACE = "istio-system";
const NAME = "istio-cni-node";
const OURS = "registry.example/ambient-cni:1.0.0";
const of =
  (plural: string) =>
  ({ target }: ApiRequest): boolean =>
    target?.verb === "get" && target.resource.plural === plural;

class Harness {
  private constructor(readonly kube: ClusterHarness) {}

  static async create(rules: Account["rules"] = CHART_RULES): Promise<Harness> {
    const harness = new Harness(await ClusterHarness.create({ rules }));
    const { server } = harness.kube;
    server.put({ kind: "Namespace", metadata: { name: NAMESPACE } });
    server.put({ kind: "Node", metadata: { name: "node1", labels: { pool: "mesh" } } });
    harness.daemonSet();
    harness.pod();
    return harness;
  }

  daemonSet({ name = NAME, image = OURS, spec = {} }: { name?: string; image?: string; spec?: object } = {}): void {
    this.kube.server.put({
      kind: "DaemonSet",
      metadata: { name, namespace: NAMESPACE },
      spec: { template: { spec: { containers: [{ name: "install-cni", image }], ...spec } } },
    });
  }

  pod({
    owner = NAME,
    kind = "DaemonSet",
    nodeName = "node1",
  }: {
    owner?: string;
    kind?: string;
    nodeName?: string;
  } = {}): void {
    this.kube.server.put({
      kind: "Pod",
      metadata: {
        name: "istio-cni-node-x",
        namespace: NAMESPACE,
        ownerReferences: [{ apiVersion: "apps/v1", kind, name: owner, uid: "u", controller: true }],
      },
      spec: { nodeName, containers: [{ name: "install-cni", image: OURS }], terminationGracePeriodSeconds: 5 },
      status: { phase: "Running" },
    });
  }

  question(config: Partial<SuccessionOptions["config"]> = {}): SuccessionQuestion {
    return new SuccessionQuestion({
      cluster: this.kube.cluster,
      config: {
        ambientEnabled: true,
        disableSafeUpgrade: false,
        nodeName: "node1",
        podName: "istio-cni-node-x",
        podNamespace: NAMESPACE,
        ...config,
      },
      clock: systemClock,
      logger: silent,
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kube[Symbol.asyncDispose]();
  }
}

test("a DaemonSet that stays, goes, and comes back", async () => {
  await using h = await Harness.create();
  const question = h.question();
  expect(question.graceSeconds).toBeUndefined();
  await question.prepare();
  expect(question.graceSeconds).toBe(5);
  expect((await question.ask()).successor).toBe("same");
  h.kube.server.put({
    kind: "DaemonSet",
    metadata: { name: NAME, namespace: NAMESPACE, deletionTimestamp: "2026-01-01T00:00:00Z" },
  });
  expect((await question.ask()).successor).toBe("none");
  h.kube.server.delete("DaemonSet", NAMESPACE, NAME);
  expect((await question.ask()).successor).toBe("none");
  h.daemonSet({ image: "istio/install-cni:1.30.0" });
  expect((await question.ask()).successor).toBe("other");
  h.daemonSet({ spec: { nodeSelector: { pool: "other" } } });
  expect((await question.ask()).successor).toBe("none");
});

test("the pod is read at the end where it could not be read before, and its DaemonSet's own name counts", async () => {
  await using h = await Harness.create("admin");
  h.kube.server.delete("DaemonSet", NAMESPACE, NAME);
  h.daemonSet({ name: "cni-by-another-name" });
  h.pod({ owner: "cni-by-another-name" });
  expect((await h.question().ask()).successor).toBe("same");
  h.kube.server.delete("DaemonSet", NAMESPACE, "cni-by-another-name");
  expect(await h.question().ask()).toEqual({
    successor: "none",
    reason: `DaemonSet ${NAMESPACE}/cni-by-another-name is gone`,
  });
});

test("the chart's rights do not reach to a DaemonSet of another name: not sure", async () => {
  await using h = await Harness.create();
  h.pod({ owner: "cni-by-another-name" });
  const { successor, reason } = await h.question().ask();
  expect(successor).toBe("same");
  expect(reason).toContain("403");
});

test("an agent that no DaemonSet runs, or another node's pod under POD_NAME", async () => {
  await using h = await Harness.create();
  h.kube.server.delete("DaemonSet", NAMESPACE, NAME);
  h.pod({ kind: "ReplicaSet" });
  expect(await h.question().ask()).toMatchObject({ successor: "same", reason: expect.stringContaining("ReplicaSet") });
  h.pod({ owner: "elsewhere", nodeName: "node2" });
  expect(await h.question().ask()).toMatchObject({ successor: "none", reason: expect.stringContaining(NAME) });
  expect((await h.question({ podName: "" }).ask()).successor).toBe("none");
  expect((await h.question({ podNamespace: "" }).ask()).successor).toBe("same");
  expect((await h.question({ podNamespace: ".." }).ask()).successor).toBe("same");
});

test("no right to ask: stays with ambient; without it the chart grants none, and nothing depends on the plugin", async () => {
  await using h = await Harness.create(CHART_RULES.filter(({ resources }) => !resources.includes("daemonsets")));
  h.kube.server.delete("DaemonSet", NAMESPACE, NAME);
  expect(await h.question().ask()).toMatchObject({ successor: "same", reason: expect.stringContaining("403") });
  expect((await h.question({ ambientEnabled: false }).ask()).successor).toBe("none");
});

test("without ambient a DaemonSet that certainly stays is an upgrade all the same", async () => {
  await using h = await Harness.create();
  expect((await h.question({ ambientEnabled: false }).ask()).successor).toBe("same");
});

test("AMBIENT_DISABLE_SAFE_UPGRADE asks nobody", async () => {
  await using h = await Harness.create();
  expect((await h.question({ disableSafeUpgrade: true }).ask()).successor).toBe("none");
  expect(h.kube.server.requests).toEqual([]);
});

const NOT_FOUND = JSON.stringify({
  kind: "Status",
  apiVersion: "v1",
  status: "Failure",
  reason: "NotFound",
  code: 404,
});

test.concurrent.each<[string, Fault]>([
  ["401", { kind: "status", code: 401 }],
  ["500", { kind: "status", code: 500 }],
  ["429 with a long Retry-After", { kind: "status", code: 429, retryAfter: 60 }],
  [
    "404 about something else",
    { kind: "status", code: 404, message: "the server could not find the requested resource" },
  ],
  ["200 with a Status of 404", { kind: "bytes", bytes: NOT_FOUND }],
  ["an empty object", { kind: "bytes", bytes: "{}" }],
  ["no JSON", { kind: "bytes", bytes: "<html>" }],
  ["half an answer", { kind: "resetBody" }],
  ["a reset", { kind: "reset" }],
  ["silence", { kind: "hang" }],
  ["headers and silence", { kind: "silence" }],
])("nothing is sure after %s, and it is over in two seconds", async (_what, fault) => {
  await using h = await Harness.create();
  h.kube.server.delete("DaemonSet", NAMESPACE, NAME);
  h.kube.server.fail({ when: of("daemonsets"), fault });
  const began = performance.now();
  expect((await h.question().ask()).successor).toBe("same");
  expect(performance.now() - began).toBeLessThan(2500);
});

test("an API server that is not there at all", async () => {
  await using h = await Harness.create();
  const question = h.question();
  await question.prepare();
  await h.kube.server.close();
  const began = performance.now();
  expect((await question.ask()).successor).toBe("same");
  expect(performance.now() - began).toBeLessThan(2500);
});

test("one answer that got lost is asked for again", async () => {
  await using h = await Harness.create();
  h.kube.server.delete("DaemonSet", NAMESPACE, NAME);
  h.kube.server.fail({ when: of("daemonsets"), fault: { kind: "hang" }, times: 1 });
  expect((await h.question().ask()).successor).toBe("none");
  h.kube.server.fail({ when: of("daemonsets"), fault: { kind: "status", code: 503 }, times: 1 });
  expect((await h.question().ask()).successor).toBe("none");
});
