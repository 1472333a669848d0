// SPDX-License-Identifier: Apache-2.0
import { afterEach, describe, expect, test } from "vitest";
import { Agent } from "../../../src/agent/agent.ts";
import type { RepairConfig } from "../../../src/core/config/config.ts";
import { AgentError } from "../../../src/core/errors.ts";
import type { Pod } from "../../../src/core/pod.ts";
import { parseFieldSelector, parseLabelSelector } from "../../../src/core/selector-text.ts";
import { isBroken, repairKind } from "../../../src/sidecar/repair.ts";
import { eventually, FakeParts, makePod } from "../../fakes/parts.ts";
import { MetricRecorder } from "../../support/recorder.ts";

const REPAIRED = "istio_cni_repair_pods_repaired_total";
const failures = (exitCode = 126, message = "", name = "istio-validation"): Pod["initFailures"] => ({
  containers: [{ name, exitCode, message }],
  restartPolicy: "Always",
  schedulerName: "default-scheduler",
  nominatedNodeName: "",
});
const broken = (changes: Partial<Pod> = {}): Partial<Pod> => ({
  phase: "Pending",
  annotations: { "sidecar.istio.io/status": "" },
  containers: ["app", "istio-proxy"],
  initContainers: ["istio-validation"],
  proxy: { uid: undefined, gid: undefined, role: "sidecar", env: {} },
  initFailures: failures(),
  ...changes,
});

class Parts extends FakeParts {
  override readonly metrics = new MetricRecorder();
  /** Of the metric, by "kind result". */
  repaired(): Record<string, number> {
    const counts = [...this.metrics.counts].filter(([key]) => key.startsWith(REPAIRED));
    return Object.fromEntries(
      counts.map(([key, count]) => {
        const { type, result } = JSON.parse(key.slice(REPAIRED.length)) as Record<string, string>;
        return [`${type} ${result}`, count];
      }),
    );
  }
}

let agent: Agent | undefined;
afterEach(async () => {
  await agent?.stop();
  agent = undefined;
});

async function started(repair: Partial<RepairConfig>, before: (parts: Parts) => void = () => undefined) {
  const parts = new Parts();
  parts.config = { ...parts.config, repair: { ...parts.config.repair, ...repair } };
  before(parts);
  agent = new Agent(parts, 1e9);
  await agent.start();
  return parts;
}

describe("which of the three", () => {
  const config = new FakeParts().config.repair;
  test.each([
    [{ repairPods: true, deletePods: true, labelPods: true }, "repair"],
    [{ deletePods: true, labelPods: true }, "delete"],
    [{ labelPods: true }, "label"],
    [{}, undefined],
    [{ enabled: false, repairPods: true }, undefined],
  ] as const)("%j: %s", (changes, kind) => {
    expect(repairKind({ ...config, ...changes })).toBe(kind);
  });
});

describe("which pods", () => {
  const config = new FakeParts().config.repair;
  test.each<[string, Partial<RepairConfig>, Partial<Pod>, boolean]>([
    ["an injected pod whose check ended with 126", {}, {}, true],
    ["one without the annotation", {}, { annotations: {} }, false],
    ["one without the annotation, where none is asked for", { sidecarAnnotation: "" }, { annotations: {} }, true],
    ["by another annotation", { sidecarAnnotation: "x" }, { annotations: { x: "" } }, true],
    ["another exit status", {}, { initFailures: failures(1) }, false],
    ["any exit status", { initContainerExitCode: 0 }, { initFailures: failures(1) }, true],
    ["another container", {}, { initFailures: failures(126, "", "other") }, false],
    ["any container", { initContainerName: "" }, { initFailures: failures(126, "", "other") }, true],
    [
      "the message",
      { initContainerTerminationMessage: " no rules " },
      { initFailures: failures(126, "no rules") },
      true,
    ],
    ["another message", { initContainerTerminationMessage: "no rules" }, { initFailures: failures(126, "oh") }, false],
    ["one that has not failed", {}, { initFailures: undefined }, false],
    ["labels that match", { labelSelectors: parseLabelSelector("a in (b)") }, { labels: { a: "b" } }, true],
    ["labels that don't", { labelSelectors: parseLabelSelector("!a") }, { labels: { a: "b" } }, false],
    [
      "fields that match",
      { fieldSelectors: parseFieldSelector("metadata.namespace!=x,spec.restartPolicy=Always") },
      {},
      true,
    ],
    ["fields that don't", { fieldSelectors: parseFieldSelector("status.phase=Running") }, {}, false],
    ["another node", { nodeName: "node2" }, {}, false],
    ["this node", { nodeName: "node1" }, {}, true],
  ])("%s", (_, settings, changes, expected) => {
    expect(isBroken(makePod("web", broken(changes)), { ...config, ...settings })).toBe(expected);
  });
});

describe("repair-pods", () => {
  test("writes the redirection of pods that started while no agent was there, once", async () => {
    const parts = await started({ repairPods: true, deletePods: true }, (all) => all.run("web", broken()));
    await eventually("repaired", () => parts.sidecars.kernel.has("ns-web"));
    await eventually("told", () => parts.cluster.events.length > 0);
    expect(parts.cluster.events).toEqual([
      expect.stringMatching(/^RepairBrokenPod web: the redirection .* has been written/),
    ]);
    // It goes on failing until kubelet runs the check again, with news each time.
    for (let i = 0; i < 3; i++) parts.run("web", broken());
    await eventually("quiet", () => agent?.reconciler.queue.depth === 0);
    expect(parts.journal.filter((entry) => entry.startsWith("redirect"))).toEqual(["redirect shop/web"]);
    expect(parts.repaired()).toEqual({ "repair success": 1 });
    expect(parts.finder.openHandles.size).toBe(0);
  });

  test("and those that break later; a successor of the same name anew", async () => {
    const parts = await started({ repairPods: true });
    parts.run("web", broken());
    await eventually("repaired", () => parts.sidecars.kernel.has("ns-web"));
    parts.cluster.deletePod("uid-web");
    parts.finder.proc.set("uid-2", "ns-2");
    parts.cluster.putPod(makePod("web", { ...broken(), uid: "uid-2" }));
    await eventually("repaired", () => parts.sidecars.kernel.has("ns-2"));
  });

  test("what is redirected already, by us or by somebody else, is left", async () => {
    const parts = await started({ repairPods: true });
    parts.sidecars.kernel.set("ns-web", "foreign");
    parts.run("web", broken());
    await eventually("seen", () => parts.repaired()["repair skip"] === 1);
    expect(parts.cluster.events).toEqual([]);
  });

  test("a pod whose netns is not found is tried again, five times, and news begins anew", async () => {
    const parts = await started({ repairPods: true });
    parts.cluster.putPod(makePod("web", broken()));
    await eventually("failed", () => parts.repaired()["repair fail"] === 1);
    expect(parts.cluster.events[0]).toMatch(/^RepairBrokenPod web: .*can't be redirected.*no process of pod shop\/web/);
    parts.run("web", broken());
    await eventually("repaired", () => parts.sidecars.kernel.has("ns-web"));
  });

  test("a pod whose own annotation is wrong is told so once, and not tried again", async () => {
    const parts = await started({ repairPods: true });
    const wrong = { "sidecar.istio.io/status": "", "sidecar.istio.io/interceptionMode": "NONE" };
    for (let i = 0; i < 3; i++) parts.run("web", broken({ annotations: wrong }));
    await eventually("told", () => parts.cluster.events.length > 0);
    parts.run("web", broken({ annotations: wrong }));
    await eventually("quiet", () => agent?.reconciler.queue.depth === 0);
    expect(parts.cluster.events).toEqual([expect.stringContaining('interceptionMode="NONE" is not allowed')]);
    expect(parts.repaired()).toEqual({ "repair fail": 1 });
  });

  test("a gateway, or a pod with its own istio-init, wants none", async () => {
    const parts = await started({ repairPods: true });
    parts.run("web", broken({ initContainers: ["istio-init", "istio-validation"] }));
    await eventually("seen", () => parts.repaired()["repair skip"] === 1);
    expect(parts.sidecars.kernel.size).toBe(0);
  });

  test("in an excluded namespace too, as upstream", async () => {
    const parts = await started({ repairPods: true });
    parts.cluster.putNamespace("kube-system", {});
    parts.run("web", broken({ namespace: "kube-system" }));
    await eventually("repaired", () => parts.sidecars.kernel.has("ns-web"));
  });
});

describe("delete-pods", () => {
  test("deletes such a pod", async () => {
    const parts = await started({ deletePods: true, labelPods: true });
    parts.run("web", broken());
    await eventually("told", () => parts.cluster.events.length > 0);
    expect(parts.journal.filter((entry) => /^(delete|label)/.test(entry))).toEqual(["delete web"]);
    expect(parts.cluster.events).toEqual([expect.stringMatching(/^DeleteBrokenPod web: .* has been deleted/)]);
    expect(parts.repaired()).toEqual({ "delete success": 1 });
  });

  test("not one that has become healthy while it waited for its turn", async () => {
    const parts = await started({ deletePods: true });
    let release: () => void = () => undefined;
    const gate = new Promise<void>((resolve) => {
      release = resolve;
    });
    const original = parts.cluster.deleteBrokenPod.bind(parts.cluster);
    parts.cluster.deleteBrokenPod = async (pod) => gate.then(() => original(pod));
    for (let i = 0; i < 4; i++) parts.run(`slow-${i}`, broken());
    parts.run("web", broken());
    parts.run("web", broken({ initFailures: undefined }));
    release();
    await eventually("the others are deleted", () => parts.repaired()["delete success"] === 4);
    await eventually("quiet", () => agent?.reconciler.queue.depth === 0);
    expect([...parts.cluster.store.keys()]).toEqual(["uid-web"]);
  });

  test("not one that has become healthy and the cache does not know it yet", async () => {
    const parts = await started({ deletePods: true });
    const original = parts.cluster.deleteBrokenPod.bind(parts.cluster);
    parts.cluster.deleteBrokenPod = (pod) => original({ ...pod, resourceVersion: "older" });
    parts.run("web", broken());
    await eventually("refused", () => parts.repaired()["delete skip"] === 1);
    expect(parts.cluster.store.has("uid-web")).toBe(true);
    expect(parts.cluster.events).toEqual([]);
    // With the news it is looked at again.
    parts.run("web", broken({ initFailures: undefined }));
    await eventually("quiet", () => agent?.reconciler.queue.depth === 0);
    expect(parts.repaired()).toEqual({ "delete skip": 1 });
  });

  test("without the right to it, the pod says so", async () => {
    const parts = await started({ deletePods: true });
    parts.cluster.mendError = new AgentError("KUBE_FORBIDDEN", "pods is forbidden");
    parts.run("web", broken());
    await eventually("told", () => parts.cluster.events.length > 0);
    expect(parts.cluster.events[0]).toMatch(/^DeleteBrokenPod web: .*can't be deleted: pods is forbidden/);
    expect(parts.repaired()).toEqual({ "delete fail": 1 });
  });
});

describe("label-pods", () => {
  test("labels such a pod, once, and none that has the label", async () => {
    const parts = await started({ labelPods: true, labelValue: "yes" });
    parts.run("web", broken());
    await eventually("told", () => parts.cluster.events.length > 0);
    parts.run("old", broken({ labels: { "cni.istio.io/uninitialized": "no" } }));
    await eventually("seen", () => parts.repaired()["label skip"] === 1);
    expect(parts.journal.filter((entry) => entry.startsWith("label"))).toEqual([
      "label web cni.istio.io/uninitialized=yes",
    ]);
    expect(parts.repaired()).toEqual({ "label success": 1, "label skip": 1 });
    expect(parts.cluster.store.get("uid-web")?.labels).toEqual({ "cni.istio.io/uninitialized": "yes" });
  });
});

test("with repair off, or none of the three on, nothing happens", async () => {
  for (const off of [{ enabled: false, repairPods: true, deletePods: true, labelPods: true }, {}]) {
    const parts = await started(off);
    parts.run("web", broken());
    await eventually("quiet", () => agent?.reconciler.queue.depth === 0);
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(parts.repaired()).toEqual({});
    await agent?.stop();
  }
});
