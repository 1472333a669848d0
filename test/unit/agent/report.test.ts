// SPDX-License-Identifier: Apache-2.0
// What the agent says of itself and its pods, checked by the schemas that its readers check it by.
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { Agent } from "../../../src/agent/agent.ts";
import { AgentError } from "../../../src/core/errors.ts";
import { parseDocument } from "../../../src/core/report/documents.ts";
import type { PodReport } from "../../../src/core/report/pods.ts";
import type { StatusReport } from "../../../src/core/report/status.ts";
import { eventually, FakeParts } from "../../fakes/parts.ts";

const FACTS = {
  version: "1.0.0",
  kernel: "6.8.0",
  upSeconds: 7,
  plugin: { verdict: "ok", text: "installed" },
} as const;

let parts: FakeParts;
let agent: Agent;
beforeEach(() => {
  parts = new FakeParts({ nodeName: "worker-3" });
  agent = new Agent(parts);
});
afterEach(() => agent.stop());

/** As its reader gets it. */
const status = (): StatusReport => parseDocument("status", JSON.parse(JSON.stringify(agent.report.status(FACTS))));
const pods = () => parseDocument("pods", JSON.parse(JSON.stringify(agent.report.pods()))).pods;
const pod = (name: string): PodReport | undefined => pods().find((one) => one.name === name);
const verdictOf = (name: string) => status().components.find((component) => component.name === name);

test("before it serves, it says what is not there yet", () => {
  expect(status()).toMatchObject({ node: "worker-3", version: "1.0.0", upSeconds: 7, pods: {} });
  expect(verdictOf("kubernetes")).toMatchObject({
    verdict: "error",
    text: "no complete list yet of pods and namespaces",
  });
  expect(verdictOf("dataplane")).toMatchObject({ verdict: "error" });
});

describe("serving", () => {
  beforeEach(() => agent.start());

  test("a pod in the mesh, one that is not, and one with the node's network", async () => {
    const web = parts.run("web");
    parts.run("out", { labels: { "istio.io/dataplane-mode": "none" } });
    parts.run("host", { hostNetwork: true });
    await eventually("enrolled", () => pod("web")?.mesh === "enrolled");
    expect(pod("web")).toMatchObject({
      uid: web.uid,
      namespace: "shop",
      netns: "ns-web",
      engine: "nftables",
      ztunnel: "acked",
      reason: "selected",
      failure: null,
      since: expect.stringMatching(/^20.*Z$/),
    });
    expect(pod("out")).toMatchObject({ mesh: "none", reason: "opted-out", engine: null, ztunnel: null });
    expect(pod("host")).toMatchObject({ mesh: "none", hostNetwork: true, reason: "host-network" });
    expect(agent.report.pod(web.uid)).toEqual(agent.report.pods().pods.find(({ name }) => name === "web"));
    expect(agent.report.pod("none of these")).toBeUndefined();
    expect(status()).toMatchObject({ pods: { enrolled: 1, none: 2 }, problems: [] });
    expect(verdictOf("pods")).toMatchObject({ verdict: "ok", text: "1 enrolled, 2 not in mesh" });
    expect(verdictOf("ztunnel")).toMatchObject({ verdict: "ok", text: "1 connected, 1 acked, 0 pending" });
  });

  test("virtual machines, by their labels", () => {
    const labels = { "kubevirt.io": "virt-launcher" };
    parts.run("web");
    parts.run("vm", { labels });
    parts.run("named", { labels, annotations: { "istio.io/reroute-virtual-interfaces": "k6t-eth0" } });
    expect(["web", "vm", "named"].map((name) => pod(name)?.machine)).toEqual([null, "bypassing", "rerouted"]);
  });

  test("a pod that fails: how often, since when, and when it is tried again", async () => {
    parts.dataplane.captureError = new AgentError("CAPTURE_DIFFERS", "chain nat-output is missing");
    parts.run("web");
    await eventually("failed three times", () => (pod("web")?.failure?.attempts ?? 0) >= 3);
    const failing = pod("web");
    expect(failing).toMatchObject({ mesh: "failing", reason: "CAPTURE_DIFFERS", engine: null });
    expect(failing?.failure).toMatchObject({ code: "CAPTURE_DIFFERS", message: "chain nat-output is missing" });
    expect(failing?.since).toBe(failing?.failure?.since);
    await eventually("a retry is due", () => (pod("web")?.failure?.nextTryMs ?? 0) > 0);
    expect(status().problems).toMatchObject([{ object: "shop/web", code: "CAPTURE_DIFFERS" }]);
    expect(verdictOf("pods")).toMatchObject({ verdict: "warn", text: "0 enrolled, 1 failing" });
    // It does not wait for ztunnel: that has nothing to do with it.
    expect(verdictOf("ztunnel")?.text).toBe("1 connected, 0 acked, 0 pending");
  });

  test("without a ztunnel, pods of the mesh wait and say for what", async () => {
    parts.ztunnel.disconnect();
    parts.run("web");
    await eventually("it waits", () => pod("web")?.reason === "NO_ZTUNNEL");
    expect(pod("web")?.mesh).toBe("pending");
    expect(verdictOf("ztunnel")).toMatchObject({ verdict: "error", text: "none connected, waited for by 1 pod" });
  });

  test("a pod's timeline: the ADD, the capture with the time of each step, the end", async () => {
    const web = parts.run("web");
    await eventually("enrolled", () => pod("web")?.mesh === "enrolled");
    parts.cluster.deletePod(web.uid);
    const timeline = () =>
      parseDocument("decisions", JSON.parse(JSON.stringify(agent.report.decisions(web.uid)))).pods[0]?.decisions ?? [];
    await eventually("forgotten", () => timeline().some(({ what }) => what === "forgotten"));
    expect(timeline().map(({ what }) => what)).toEqual(["ztunnel acked", "captured", "annotated", "forgotten"]);
    const captured = timeline().find(({ what }) => what === "captured");
    expect(captured).toMatchObject({ engine: "nftables", reason: "watch", times: 1 });
    expect(Object.keys(captured?.phases ?? {})).toEqual([
      "prepare routes",
      "add to ztunnel",
      "exempt probes",
      "capture",
    ]);
    expect(captured?.milliseconds).toBeGreaterThan(0);
    expect(agent.report.decisions("nobody").pods).toEqual([]);
  });

  test("what another program changes in a pod is repaired, and the timeline says what it was", async () => {
    const web = parts.run("web");
    await eventually("enrolled", () => pod("web")?.mesh === "enrolled");
    parts.dataplane.kernel.set("ns-web", { mode: "captured", prepared: true, spec: "another" });
    parts.dataplane.touched("ns-web");
    const decisions = () => agent.report.decisions(web.uid).pods[0]?.decisions ?? [];
    await eventually("repaired", () => decisions().some(({ what }) => what === "repaired"));
    expect(decisions().find(({ what }) => what === "repaired")).toMatchObject({
      engine: "nftables",
      reason: "differs",
      detail: "rules differ",
    });
  });
});

test("since when an adopted pod is captured is not known, and not made up", async () => {
  const web = parts.run("web", { annotations: { "ambient.istio.io/redirection": "enabled" } });
  const first = new Agent(parts);
  await first.start();
  await eventually("enrolled", () => first.report.pods().pods[0]?.mesh === "enrolled");
  await first.stop();
  await agent.start();
  expect(pod("web")).toMatchObject({ mesh: "enrolled", since: null });
  expect(agent.report.decisions(web.uid).pods[0]?.decisions.map(({ what }) => what)).toContain("adopted");
});
