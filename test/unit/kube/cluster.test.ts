// SPDX-License-Identifier: Apache-2.0
import { rmSync } from "node:fs";
import { expect, test } from "vitest";
import { KubeCluster } from "../../../src/kube/cluster.ts";
import { isList, isVerb, type isWatch } from "../../fakes/apiserver.ts";
import { LogRecorder, MetricRecorder } from "../../support/recorder.ts";
import { ClusterHarness } from "./cluster-harness.ts";
import { StepClock } from "./step-clock.ts";
import { until } from "./until.ts";

test("with the chart's rights: caches by uid and name, changes are told", async () => {
  await using h = await ClusterHarness.create();
  const first = h.pod("web-0");
  const pods: string[] = [];
  const namespaces: string[] = [];
  h.cluster.onPod(({ kind, pod, previous }) => pods.push(`${kind} ${pod.name} ${previous?.phase ?? "new"}`));
  h.cluster.onNamespace(({ kind, namespace }) => namespaces.push(`${kind} ${namespace.name}`));
  expect(h.cluster.synced).toBe(false);
  await h.cluster.start();
  expect(h.cluster.synced).toBe(true);
  expect(h.cluster.pod(first.uid)?.name).toBe("web-0");
  expect(h.cluster.podNamed("shop", "web-0")?.uid).toBe(first.uid);
  expect(h.cluster.podNamed("shop", "web-1")).toBeUndefined();
  expect(h.cluster.namespace("shop")?.labels).toEqual({ "kubernetes.io/metadata.name": "shop" });
  expect([...h.cluster.namespaces()].map(({ name }) => name)).toEqual(["shop"]);
  h.server.put({ kind: "Namespace", metadata: { name: "other" } });
  h.server.delete("Pod", "shop", "web-0");
  await until(() => pods.length === 2 && namespaces.length === 2, "not told");
  expect(pods).toEqual(["upsert web-0 new", "delete web-0 Running"]);
  expect(namespaces).toEqual(["upsert shop", "upsert other"]);
  expect([...h.cluster.pods()]).toEqual([]);
});

test("a listener that left hears nothing", async () => {
  await using h = await ClusterHarness.create();
  const heard: string[] = [];
  const stop = h.cluster.onPod(({ pod }) => heard.push(pod.name));
  await h.cluster.start();
  stop();
  stop();
  h.pod("a");
  await until(() => h.cluster.podNamed("shop", "a") !== undefined, "no pod");
  expect(heard).toEqual([]);
});

test("start waits through an API server that is not there yet", async () => {
  await using h = await ClusterHarness.create();
  h.server.fail({ when: isList, fault: { kind: "reset" }, times: 2 });
  await h.cluster.start();
  expect(h.cluster.synced).toBe(true);
});

test("start says which file is missing", async () => {
  await using h = await ClusterHarness.create();
  rmSync(h.scratch.file("sa/token"));
  await expect(h.cluster.start()).rejects.toMatchObject({
    code: "KUBE_CREDENTIALS",
    message: expect.stringContaining(h.scratch.file("sa/token")),
  });
});

test("stop before anything was listed: start rejects, no connection is left", async () => {
  await using h = await ClusterHarness.create();
  h.server.fail({ when: isList, fault: { kind: "hang" } });
  const started = expect(h.cluster.start()).rejects.toMatchObject({ code: "KUBE_STOPPED" });
  await until(() => h.server.requests.length === 2, "no lists");
  await h.cluster.stop();
  await started;
  await h.cluster.stop();
});

test("stop with watches open closes them", async () => {
  await using h = await ClusterHarness.create();
  await h.cluster.start();
  await until(() => h.server.openWatches === 2, "no watches");
  await h.cluster.stop();
  await until(() => h.server.openWatches === 0, "watches are left");
});

test.each(["", "node 1", "node1,metadata.name=x", "-node"])("a node name that is none is refused: %j", (nodeName) => {
  const make = () => new KubeCluster({ nodeName, logger: new LogRecorder(), metrics: new MetricRecorder() });
  expect(make).toThrow(/NODE_NAME/);
});

test("status says how old each watch is", async () => {
  const clock = new StepClock();
  await using h = await ClusterHarness.create({ clock });
  await h.cluster.start();
  await until(() => h.cluster.status().every((one) => one.watchAgeSeconds !== undefined), "no watches");
  clock.advance(15_000);
  expect(h.cluster.status()).toEqual([
    { resource: "pods", synced: true, size: 0, resourceVersion: "2", watchAgeSeconds: 15, relists: 0 },
    { resource: "namespaces", synced: true, size: 1, resourceVersion: "2", watchAgeSeconds: 15, relists: 0 },
  ]);
});

test("readPod is live, tells absence, and fails with what the server said", async () => {
  await using h = await ClusterHarness.create();
  const { signal } = new AbortController();
  h.pod("a");
  expect(await h.cluster.readPod("shop", "a", signal)).toMatchObject({ name: "a", phase: "Running" });
  expect(await h.cluster.readPod("shop", "b", signal)).toBeUndefined();
  expect(await h.cluster.readPod("shop", "..%2f/x", signal)).toBeUndefined();
  await expect(h.cluster.readPod("shop", "..", signal)).rejects.toThrow(/not a Kubernetes name/);
  h.server.fail({ when: isVerb("get"), fault: { kind: "status", code: 500 }, times: 1 });
  await expect(h.cluster.readPod("shop", "a", signal)).rejects.toMatchObject({ status: 500 });
  h.server.fail({ when: isVerb("get"), fault: { kind: "bytes", bytes: "{}" }, times: 1 });
  await expect(h.cluster.readPod("shop", "a", signal)).rejects.toMatchObject({ code: "KUBE_MALFORMED" });
});

test("readPod ends with its caller", async () => {
  await using h = await ClusterHarness.create();
  h.server.fail({ when: isVerb("get"), fault: { kind: "hang" } });
  const abort = new AbortController();
  const call = expect(h.cluster.readPod("shop", "a", abort.signal)).rejects.toMatchObject({ code: "KUBE_STOPPED" });
  await until(() => h.server.requests.length === 1, "no request");
  abort.abort();
  await call;
});

test("a pod with a broken address is told once, however often it changes", async () => {
  await using h = await ClusterHarness.create();
  await h.cluster.start();
  const broken = (generation: number) =>
    h.server.put({
      kind: "Pod",
      metadata: { name: "odd", namespace: "shop", labels: { generation: String(generation) } },
      spec: { nodeName: "node1" },
      status: { podIPs: [{ ip: "not-an-ip" }, { ip: "10.0.0.9" }] },
    });
  for (let generation = 0; generation < 5; generation++) broken(generation);
  await until(() => h.cluster.podNamed("shop", "odd")?.labels.generation === "4", "no pod");
  expect(h.cluster.podNamed("shop", "odd")?.ips).toEqual(["10.0.0.9"]);
  expect(h.logger.lines.filter(({ level }) => level === "warn")).toHaveLength(1);
});

test("one collection that fails leaves the other alone", async () => {
  await using h = await ClusterHarness.create();
  const isPods = (request: Parameters<typeof isWatch>[0]) => request.target?.resource.plural === "pods";
  h.server.fail({ when: isPods, fault: { kind: "status", code: 403 } });
  const started = h.cluster.start();
  const outcome = expect(started).rejects.toMatchObject({ code: "KUBE_STOPPED" });
  await until(() => h.cluster.namespace("shop") !== undefined, "no namespaces");
  expect(h.cluster.synced).toBe(false);
  const warning = h.logger.lines.find(({ level }) => level === "warn");
  expect(warning?.fields).toMatchObject({ resource: "pods", remedy: expect.stringContaining("ClusterRole") });
  await h.cluster.stop();
  await outcome;
});
