// SPDX-License-Identifier: Apache-2.0
// A pod that was captured is never let out, whatever else is broken; a pod that is not captured is
// never announced as if it were.
import { afterEach, describe, expect, test } from "vitest";
import { Agent } from "../../../src/agent/agent.ts";
import { AgentError } from "../../../src/core/errors.ts";
import type { Pod } from "../../../src/core/pod.ts";
import { eventually, FakeParts, makePod } from "../../fakes/parts.ts";

let agent: Agent | undefined;

afterEach(async () => {
  await agent?.stop();
  agent = undefined;
});

async function enrolled(parts: FakeParts, changes: Partial<Pod> = {}): Promise<Pod> {
  const pod = parts.run("web", changes);
  agent = new Agent(parts, 1e9);
  await agent.start();
  await eventually("enrolled", () => agent?.pods()[0]?.state === "enrolled");
  await eventually("quiet", () => agent?.reconciler.queue.depth === 0);
  parts.journal.length = 0;
  return parts.cluster.pod(pod.uid) ?? pod;
}

const mode = (parts: FakeParts, netns = "ns-web") => parts.dataplane.kernel.get(netns)?.mode ?? "absent";

/** Somebody removes everything of ours in the pod's netns; the kernel tells. */
function flush(parts: FakeParts): void {
  parts.dataplane.kernel.delete("ns-web");
  parts.dataplane.touched("ns-web");
}

describe("a captured pod whose rules vanish is captured again at once", () => {
  test("with everything else in order", async () => {
    const parts = new FakeParts();
    await enrolled(parts);
    flush(parts);
    await eventually("captured", () => mode(parts) === "captured");
    expect(parts.journal).toEqual(["capture shop/web"]);
  });

  test("without a ztunnel", async () => {
    const parts = new FakeParts();
    await enrolled(parts);
    parts.ztunnel.disconnect();
    flush(parts);
    await eventually("captured", () => mode(parts) === "captured");
    expect(parts.journal.some((line) => line.startsWith("release"))).toBe(false);
  });

  test("while the host's set can't be written", async () => {
    const parts = new FakeParts();
    const pod = await enrolled(parts);
    parts.probes.error = new Error("nft says no");
    parts.dataplane.kernel.delete("ns-web");
    parts.cluster.putPod({ ...pod, ips: ["10.0.0.9"] });
    await eventually("captured", () => mode(parts) === "captured");
    await eventually("told", () => agent?.pods()[0]?.state === "failing");
  });

  test("while one of its annotations is invalid, which is told and holds up nothing", async () => {
    const parts = new FakeParts();
    const pod = await enrolled(parts);
    const annotations = { ...pod.annotations, "istio.io/reroute-virtual-interfaces": "a;b c" };
    parts.cluster.putPod({ ...pod, annotations });
    await eventually("told", () => parts.cluster.events.some((event) => event.includes("a;b c")));
    flush(parts);
    await eventually("captured", () => mode(parts) === "captured");
    expect(agent?.missing()).toEqual([]);
    expect(parts.journal).not.toContain("annotate web pending");
  });

  test("also when the invalid annotation is met after a restart", async () => {
    const parts = new FakeParts();
    const pod = await enrolled(parts);
    await agent?.stop();
    const annotations = { ...pod.annotations, "istio.io/reroute-virtual-interfaces": "a;b c" };
    parts.cluster.putPod({ ...pod, annotations });
    agent = new Agent(parts, 1e9);
    await agent.start();
    await eventually("told", () => parts.cluster.events.some((event) => event.includes("a;b c")));
    expect(mode(parts)).toBe("captured");
    expect(parts.journal).not.toContain("annotate web pending");
  });

  test("when an agent that starts finds it announced and not captured", async () => {
    const parts = new FakeParts();
    parts.ztunnel.connected = false;
    parts.run("web", { annotations: { "ambient.istio.io/redirection": "enabled" } });
    agent = new Agent(parts, 1e9);
    await agent.start();
    await eventually("captured", () => mode(parts) === "captured");
  });
});

describe("announced means captured", () => {
  test("a kernel that can't be read: pending, with the reason", async () => {
    const parts = new FakeParts();
    await enrolled(parts);
    parts.dataplane.observeError = new AgentError("EIO", "the kernel does not answer");
    agent?.reconciler.queue.trigger("uid-web");
    await eventually("pending", () => parts.journal.includes("annotate web pending"));
    expect(agent?.pods()[0]?.reason).toBe("EIO");
  });

  test("IPv6 that the node does not capture is said, in the log and as an Event", async () => {
    const parts = new FakeParts({ ipv6: false });
    await enrolled(parts, { ips: ["10.0.0.2", "fd00::2"] });
    expect(parts.cluster.events.join()).toContain("fd00::2 is not captured: AMBIENT_IPV6");
    expect([...parts.probes.entries.keys()]).toEqual(["10.0.0.2"]);
  });

  test("an ADD whose pod is deleted while it waits is no success", async () => {
    const parts = new FakeParts();
    parts.cluster.putPod(makePod("web", { phase: "Pending", ips: [] }));
    agent = new Agent(parts, 1e9);
    await agent.start();
    await eventually("quiet", () => agent?.reconciler.queue.depth === 0);
    const request = {
      containerId: "c",
      netns: "/run/netns/a",
      ifName: "eth0",
      podNamespace: "shop",
      podName: "web",
      podUid: "uid-web",
      ips: ["10.0.0.7"],
    };
    const add = agent.admission.add(request, new AbortController().signal);
    parts.cluster.deletePod("uid-web");
    const outcome = await add.then(
      () => "success",
      (error: unknown) => (error instanceof AgentError ? error.code : String(error)),
    );
    expect(outcome === "success" ? mode(parts, "/run/netns/a") : outcome).not.toBe("absent");
  });

  test("a pod that leaves the mesh unseen loses its annotation, though its netns is not found", async () => {
    const parts = new FakeParts();
    const pod = makePod("web", { labels: { "istio.io/dataplane-mode": "none" } });
    parts.cluster.putPod({ ...pod, annotations: { "ambient.istio.io/redirection": "enabled" } });
    agent = new Agent(parts, 1e9);
    await agent.start();
    await eventually("un-annotated", () => parts.journal.includes("annotate web null"));
  });
});

describe("nobody waits for somebody else's trouble", () => {
  test("draining pods hold no place that other pods need", async () => {
    const parts = new FakeParts({ drainSeconds: 20 });
    for (let i = 0; i < 20; i++) parts.run(`p${i}`, { ips: [`10.0.1.${i}`] });
    agent = new Agent(parts, 1e9);
    await agent.start();
    await eventually("all", () => agent?.pods().every(({ state }) => state === "enrolled") ?? false);
    parts.dataplane.proxied = 1;
    parts.cluster.putNamespace("other", { "istio.io/dataplane-mode": "ambient" });
    parts.cluster.putNamespace("shop", {});
    parts.run("late", { namespace: "other", ips: ["10.0.2.1"] });
    await eventually("captured beside them", () => mode(parts, "ns-late") === "captured");
    expect(mode(parts, "ns-p0")).toBe("draining");
  });

  test("an API server that takes no patch does not fail the ADD of a captured pod", async () => {
    const parts = new FakeParts();
    parts.cluster.putPod(makePod("web", { phase: "Pending", ips: [] }));
    agent = new Agent(parts, 1e9);
    await agent.start();
    parts.cluster.annotateHangs = true;
    const request = {
      containerId: "c",
      netns: "/run/netns/a",
      ifName: "eth0",
      podNamespace: "shop",
      podName: "web",
      podUid: "uid-web",
      ips: ["10.0.0.7"],
    };
    expect(await agent.admission.add(request, new AbortController().signal)).toBe("ambient");
    parts.cluster.annotateHangs = false;
    agent.reconciler.queue.trigger("uid-web");
    await eventually("annotated later", () => parts.journal.includes("annotate web enabled"));
  }, 10_000);

  test("a deleted pod leaves ztunnel though the host's set can't be written, and the other way round", async () => {
    const parts = new FakeParts();
    await enrolled(parts);
    parts.probes.error = new Error("nft says no");
    parts.cluster.deletePod("uid-web");
    await eventually("deleted there", () => parts.journal.includes("zds del uid-web"));
    expect(parts.finder.openHandles.size).toBe(0);
    expect(parts.ztunnel.snapshot?.()).toEqual([]);
    parts.probes.error = undefined;
    await eventually("forgotten", () => agent?.roster.size === 0);
  });

  test("a ztunnel that refuses a del does not keep the pod for ever", async () => {
    const parts = new FakeParts();
    await enrolled(parts);
    parts.ztunnel.delError = new AgentError("ZTUNNEL_REFUSED", "no");
    parts.cluster.deletePod("uid-web");
    await eventually("forgotten", () => agent?.roster.size === 0);
  });
});

test("a captured pod without addresses yet is kept in the snapshot of a restarted agent", async () => {
  const parts = new FakeParts();
  parts.ztunnel.connected = false;
  parts.cluster.putPod(makePod("web", { ips: [], annotations: { "ambient.istio.io/redirection": "enabled" } }));
  agent = new Agent(parts, 1e9);
  await agent.start();
  expect(parts.ztunnel.snapshot?.()).toMatchObject([{ workload: { name: "web" }, netns: undefined }]);
});

test("a pod deleted while the agent adopts it is forgotten", async () => {
  const parts = new FakeParts();
  parts.run("web", { annotations: { "ambient.istio.io/redirection": "enabled" } });
  parts.probes.meanwhile = () => parts.cluster.deletePod("uid-web");
  agent = new Agent(parts, 1e9);
  await agent.start();
  await eventually("forgotten", () => agent?.roster.size === 0);
});

test("what the new ztunnel has acked is not asked again when the old one goes", async () => {
  const parts = new FakeParts();
  await enrolled(parts);
  parts.ztunnel.listener?.acked("uid-web", 2, "ns-web");
  parts.ztunnel.connections = () => [{ id: 2, pid: 0, uid: 0, protocol: 1, seconds: 1, ready: false, acked: 1 }];
  parts.ztunnel.listener?.changed();
  expect(agent?.roster.get("uid-web")?.acked).toBe(true);
});

test("a number that a later netns happens to have again proves nothing", async () => {
  const parts = new FakeParts();
  parts.finder.proc.set("uid-web", "/ns-web");
  const pod = makePod("web");
  parts.cluster.putPod(pod);
  agent = new Agent(parts, 1e9);
  await agent.start();
  await eventually("enrolled", () => agent?.pods()[0]?.state === "enrolled");
  parts.ztunnel.disconnect();
  const request = (netns: string) => ({
    containerId: "c",
    netns,
    ifName: "eth0",
    podNamespace: "shop",
    podName: "web",
    podUid: "uid-web",
    ips: ["10.0.0.7"],
  });
  const add = (netns: string) => agent?.admission.add(request(netns), new AbortController().signal);
  await expect(add("/run/netns/other")).rejects.toMatchObject({ code: "NO_ZTUNNEL" });
  parts.dataplane.kernel.clear();
  await expect(add("/ns-web")).rejects.toMatchObject({ code: "NO_ZTUNNEL" });
});

test("a pod that keeps undoing its capture costs a repair now and then, and no flapping annotation", async () => {
  const parts = new FakeParts();
  await enrolled(parts);
  const began = Date.now();
  while (Date.now() - began < 900) {
    flush(parts);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  const repairs = parts.journal.filter((line) => line === "capture shop/web").length;
  expect(repairs).toBeGreaterThan(1);
  expect(repairs).toBeLessThan(8);
  expect(parts.journal.some((line) => line.startsWith("annotate"))).toBe(false);
  await eventually("captured", () => mode(parts) === "captured");
});

test("a draining pod is looked at ten times a second, however often it is triggered", async () => {
  const parts = new FakeParts({ drainSeconds: 20 });
  await enrolled(parts);
  parts.dataplane.proxied = 1;
  let looks = 0;
  parts.dataplane.proxiedConnections = () => {
    looks += 1;
    return 1;
  };
  parts.cluster.putNamespace("shop", {});
  await eventually("draining", () => mode(parts) === "draining");
  for (let i = 0; i < 20; i++) {
    agent?.reconciler.queue.trigger("uid-web");
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  await eventually("quiet", () => agent?.reconciler.queue.depth === 0);
  looks = 0;
  await new Promise((resolve) => setTimeout(resolve, 500));
  expect(looks).toBeLessThan(9);
});
