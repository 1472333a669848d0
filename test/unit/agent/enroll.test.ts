// SPDX-License-Identifier: Apache-2.0
import { afterEach, describe, expect, test } from "vitest";
import { Agent } from "../../../src/agent/agent.ts";
import { AgentError } from "../../../src/core/errors.ts";
import { eventually, FakeParts, makePod } from "../../fakes/parts.ts";

const LABEL = "istio.io/dataplane-mode";
let agent: Agent | undefined;

afterEach(async () => {
  await agent?.stop();
  agent = undefined;
});

async function startAgent(parts: FakeParts): Promise<Agent> {
  agent = new Agent(parts, 1e9);
  await agent.start();
  return agent;
}

const stateOf = (pod: string) => agent?.pods().find((status) => status.pod === pod)?.state;

describe("a running pod whose namespace is labelled", () => {
  test("is prepared, told to ztunnel, exempted, captured and annotated, in this order", async () => {
    const parts = new FakeParts();
    parts.cluster.putNamespace("shop", {});
    parts.run("web");
    await startAgent(parts);
    parts.journal.length = 0;
    parts.cluster.putNamespace("shop", { [LABEL]: "ambient" });
    await eventually("annotated", () => parts.journal.includes("annotate web enabled"));
    expect(parts.journal).toEqual([
      "prepare shop/web",
      "zds add web",
      "exempt uid-web 10.0.0.2",
      "capture shop/web",
      "annotate web enabled",
    ]);
    expect(stateOf("shop/web")).toBe("enrolled");
  });

  test("an update that changes nothing changes nothing", async () => {
    const parts = new FakeParts();
    const pod = parts.run("web");
    await startAgent(parts);
    await eventually("enrolled", () => stateOf("shop/web") === "enrolled");
    await eventually("quiet", () => agent?.reconciler.queue.depth === 0);
    parts.journal.length = 0;
    parts.cluster.putPod({ ...(parts.cluster.pod(pod.uid) ?? pod), resourceVersion: "9999" });
    await eventually("quiet again", () => agent?.reconciler.queue.depth === 0);
    expect(parts.journal).toEqual([]);
  });

  test("without a ztunnel it stays untouched and `pending`, and is captured when one has taken it", async () => {
    const parts = new FakeParts();
    parts.ztunnel.connected = false;
    parts.run("web");
    await startAgent(parts);
    await eventually("pending", () => parts.journal.includes("annotate web pending"));
    expect(parts.dataplane.kernel.get("ns-web")).toBeUndefined();
    expect(agent?.missing()).toEqual([]);
    parts.ztunnel.connect();
    await eventually("captured", () => parts.dataplane.kernel.get("ns-web")?.mode === "captured");
    await eventually("annotated", () => parts.journal.includes("annotate web enabled"));
    // The snapshot's ack was enough: no second add.
    expect(parts.journal.filter((line) => line === "zds add web")).toEqual([]);
  });

  test("a failing capture undoes all steps, newest first, and is tried again", async () => {
    const parts = new FakeParts();
    parts.dataplane.captureError = new AgentError("NFT_FAILED", "nft said no");
    parts.run("web");
    await startAgent(parts);
    await eventually("failed once", () => parts.journal.includes("annotate web pending"));
    const upTo = parts.journal.slice(parts.journal.indexOf("prepare shop/web"));
    expect(upTo.slice(0, 7)).toEqual([
      "prepare shop/web",
      "zds add web",
      "exempt uid-web 10.0.0.2",
      "revoke uid-web 10.0.0.2",
      "zds del uid-web",
      "release ns-web",
      "annotate web pending",
    ]);
    expect(stateOf("shop/web")).toBe("failing");
    expect(agent?.missing()).toEqual(["pod shop/web: NFT_FAILED"]);
    parts.dataplane.captureError = undefined;
    await eventually("enrolled", () => stateOf("shop/web") === "enrolled");
    expect(parts.cluster.events.map((event) => event.split(" ")[0])).toEqual([
      "AmbientEnrollmentFailed",
      "AmbientEnrolled",
    ]);
  });

  test("a captured pod is repaired, never let out, when its rules differ and the repair fails", async () => {
    const parts = new FakeParts();
    parts.run("web");
    await startAgent(parts);
    await eventually("enrolled", () => stateOf("shop/web") === "enrolled");
    await eventually("quiet", () => agent?.reconciler.queue.depth === 0);
    parts.journal.length = 0;
    const state = parts.dataplane.kernel.get("ns-web");
    if (state !== undefined) state.spec = "somebody changed it";
    parts.dataplane.captureError = new Error("busy");
    agent?.reconciler.queue.trigger("uid-web");
    await eventually("pending", () => parts.journal.includes("annotate web pending"));
    expect(parts.journal.some((line) => /^(release|revoke|zds del|drain)/.test(line))).toBe(false);
    parts.dataplane.captureError = undefined;
    await eventually("repaired", () => parts.journal.includes("annotate web enabled"));
  });

  test("an annotation with a bad interface name fails that pod with the name, and no other", async () => {
    const parts = new FakeParts();
    parts.run("bad", { annotations: { "istio.io/reroute-virtual-interfaces": "eth0; drop" }, ips: ["10.0.0.3"] });
    parts.run("good");
    await startAgent(parts);
    await eventually("good", () => stateOf("shop/good") === "enrolled");
    await eventually("event", () => parts.cluster.events.length > 0);
    expect(parts.cluster.events[0]).toContain("eth0; drop");
    expect(parts.dataplane.kernel.get("ns-bad")).toBeUndefined();
  });

  test("changing an override annotation is applied to the live pod", async () => {
    const parts = new FakeParts();
    const pod = parts.run("web");
    await startAgent(parts);
    await eventually("enrolled", () => stateOf("shop/web") === "enrolled");
    const stored = parts.cluster.pod(pod.uid) ?? pod;
    parts.cluster.putPod({
      ...stored,
      annotations: { ...stored.annotations, "ambient.istio.io/dns-capture": "false" },
    });
    await eventually(
      "applied",
      () => parts.dataplane.kernel.get("ns-web")?.spec?.includes('"dnsCapture":false') ?? false,
    );
  });

  test("a new address is exempted and the old one revoked", async () => {
    const parts = new FakeParts();
    const pod = parts.run("web");
    await startAgent(parts);
    await eventually("enrolled", () => stateOf("shop/web") === "enrolled");
    parts.cluster.putPod({ ...(parts.cluster.pod(pod.uid) ?? pod), ips: ["10.0.0.9"] });
    await eventually("moved", () => parts.probes.entries.has("10.0.0.9") && !parts.probes.entries.has("10.0.0.2"));
  });
});

test("a pod that goes after its new address was exempted and before its old one could be revoked leaves neither", async () => {
  const parts = new FakeParts();
  const pod = parts.run("web");
  await startAgent(parts);
  await eventually("captured", () => parts.probes.entries.has(pod.ips[0] ?? ""));
  const revoke = parts.probes.revoke.bind(parts.probes);
  let refused = 0;
  parts.probes.revoke = async (uid, ips) => {
    if (refused++ === 0) throw new Error("nft is busy");
    await revoke(uid, ips);
  };
  parts.cluster.putPod({ ...pod, ips: ["10.0.0.9"], resourceVersion: "9001" });
  await eventually("refused", () => refused === 1);
  parts.cluster.deletePod(pod.uid);
  await eventually("forgotten", () => agent?.roster.get(pod.uid) === undefined);
  expect([...parts.probes.entries]).toEqual([]);
});

describe("leaving the mesh", () => {
  test("drains, tells the cluster, then ztunnel, then removes everything", async () => {
    const parts = new FakeParts();
    parts.run("web");
    await startAgent(parts);
    await eventually("enrolled", () => stateOf("shop/web") === "enrolled");
    await eventually("quiet", () => agent?.reconciler.queue.depth === 0);
    parts.journal.length = 0;
    parts.cluster.putNamespace("shop", {});
    await eventually("released", () => parts.journal.includes("revoke uid-web 10.0.0.2"));
    expect(parts.journal).toEqual([
      "drain shop/web",
      "annotate web null",
      "zds del uid-web",
      "release ns-web",
      "revoke uid-web 10.0.0.2",
    ]);
    await eventually("forgotten", () => agent?.roster.size === 0);
    expect(parts.finder.openHandles.size).toBe(0);
  });

  test("waits for open proxied connections, but not longer than the drain time", async () => {
    const parts = new FakeParts({ drainSeconds: 0.3 });
    parts.run("web");
    await startAgent(parts);
    await eventually("enrolled", () => stateOf("shop/web") === "enrolled");
    parts.dataplane.proxied = 1;
    const began = Date.now();
    parts.cluster.putNamespace("shop", {});
    await eventually("draining", () => parts.journal.includes("annotate web null"));
    expect(parts.journal).not.toContain("zds del uid-web");
    await eventually("deleted", () => parts.journal.includes("zds del uid-web"));
    expect(Date.now() - began).toBeGreaterThanOrEqual(290);
  });

  test("a label that comes back while draining captures again, and ztunnel never hears of it", async () => {
    const parts = new FakeParts({ drainSeconds: 30 });
    parts.run("web");
    await startAgent(parts);
    await eventually("enrolled", () => stateOf("shop/web") === "enrolled");
    await eventually("quiet", () => agent?.reconciler.queue.depth === 0);
    parts.dataplane.proxied = 1;
    parts.journal.length = 0;
    parts.cluster.putNamespace("shop", {});
    await eventually("draining", () => parts.journal.includes("annotate web null"));
    parts.cluster.putNamespace("shop", { [LABEL]: "ambient" });
    await eventually("captured again", () => parts.journal.includes("annotate web enabled"));
    expect(parts.journal).not.toContain("zds del uid-web");
    expect(parts.dataplane.kernel.get("ns-web")?.mode).toBe("captured");
  });

  test("rules of an un-annotated pod are removed too: the kernel decides, not the annotation", async () => {
    const parts = new FakeParts();
    parts.cluster.putNamespace("shop", {});
    parts.run("web");
    parts.dataplane.kernel.set("ns-web", { mode: "captured", prepared: true, spec: "" });
    await startAgent(parts);
    await eventually("released", () => parts.journal.includes("release ns-web"));
    expect(parts.dataplane.kernel.has("ns-web")).toBe(false);
  });

  test("a pod whose netns is not found is not forgotten with its rules in place", async () => {
    const parts = new FakeParts();
    parts.run("web");
    await startAgent(parts);
    await eventually("enrolled", () => stateOf("shop/web") === "enrolled");
    agent?.roster.get("uid-web")?.dropNetns();
    parts.finder.proc.delete("uid-web");
    parts.cluster.putNamespace("shop", {});
    await new Promise((resolve) => setTimeout(resolve, 80));
    expect(parts.journal).not.toContain("release ns-web");
    parts.finder.proc.set("uid-web", "ns-web");
    await eventually("released", () => parts.journal.includes("release ns-web"));
  });

  test("a deleted pod: exemption, ztunnel, netns; no drain and no rules to remove", async () => {
    const parts = new FakeParts();
    parts.run("web");
    await startAgent(parts);
    await eventually("enrolled", () => stateOf("shop/web") === "enrolled");
    await eventually("quiet", () => agent?.reconciler.queue.depth === 0);
    parts.journal.length = 0;
    // The namespace's delete may arrive first.
    parts.cluster.deleteNamespace("shop");
    parts.cluster.deletePod("uid-web");
    await eventually("forgotten", () => agent?.roster.size === 0);
    expect([...parts.journal].sort()).toEqual(["revoke uid-web 10.0.0.2", "zds del uid-web"]);
    expect(parts.finder.openHandles.size).toBe(0);
  });

  test("a finished pod that lost its addresses in the last status is still revoked by address", async () => {
    const parts = new FakeParts();
    const pod = parts.run("job");
    await startAgent(parts);
    await eventually("enrolled", () => stateOf("shop/job") === "enrolled");
    parts.cluster.putPod({ ...(parts.cluster.pod(pod.uid) ?? pod), phase: "Succeeded", ips: [] });
    await eventually("forgotten", () => agent?.roster.size === 0);
    expect(parts.probes.entries.size).toBe(0);
    expect(parts.journal.at(-1)).toBe("annotate job null");
    parts.cluster.putPod({ ...(parts.cluster.pod(pod.uid) ?? pod), phase: "Running", ips: ["10.0.0.2"] });
    await eventually("enrolled again", () => stateOf("shop/job") === "enrolled");
  });

  test("an unknown namespace decides nothing", async () => {
    const parts = new FakeParts();
    parts.run("web");
    await startAgent(parts);
    await eventually("enrolled", () => stateOf("shop/web") === "enrolled");
    await eventually("quiet", () => agent?.reconciler.queue.depth === 0);
    parts.journal.length = 0;
    parts.cluster.deleteNamespace("shop");
    agent?.reconciler.queue.trigger("uid-web");
    await eventually("quiet", () => agent?.reconciler.queue.depth === 0);
    expect(parts.journal).toEqual([]);
  });
});

test("200 pods labelled at once cost a handful of passes over /proc", async () => {
  const parts = new FakeParts();
  parts.cluster.putNamespace("shop", {});
  for (let i = 0; i < 200; i++) parts.run(`p${i}`, { ips: [`10.0.1.${i}`] });
  await startAgent(parts);
  parts.finder.passes = 0;
  parts.cluster.putNamespace("shop", { [LABEL]: "ambient" });
  await eventually("all", () => agent?.pods().every(({ state }) => state === "enrolled") ?? false);
  expect(parts.finder.passes).toBeLessThan(30);
  expect(makePod("x").uid).toBe("uid-x");
});

describe("connections older than the capture", () => {
  test("are counted, and go on", async () => {
    const parts = new FakeParts();
    parts.existing.open.set("ns-web", 3);
    parts.run("web");
    await startAgent(parts);
    await eventually("enrolled", () => stateOf("shop/web") === "enrolled");
    await eventually("annotated", () => parts.journal.includes("annotate web enabled"));
    expect(agent?.pods()[0]).toMatchObject({ existing: 3 });
    expect(parts.existing.open.get("ns-web")).toBe(3);
  });

  test("are reset where the node says so, once the pod is captured", async () => {
    const parts = new FakeParts({ existingConnections: "reset" });
    parts.existing.open.set("ns-web", 3);
    parts.run("web");
    await startAgent(parts);
    await eventually("annotated", () => parts.journal.includes("annotate web enabled"));
    expect(parts.journal.indexOf("reset 3 of ns-web")).toBeGreaterThan(parts.journal.indexOf("capture shop/web"));
    expect(agent?.pods()[0]).toMatchObject({ existing: 0 });
  });

  test("that can't be read do not stand in the way of the pod", async () => {
    const parts = new FakeParts();
    parts.existing.count = () => {
      throw new AgentError("EOPNOTSUPP", "no sock_diag");
    };
    parts.run("web");
    await startAgent(parts);
    await eventually("annotated", () => parts.journal.includes("annotate web enabled"));
  });
});
