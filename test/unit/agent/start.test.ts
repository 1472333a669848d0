// SPDX-License-Identifier: Apache-2.0
import { afterEach, describe, expect, test, vi } from "vitest";
import { Agent } from "../../../src/agent/agent.ts";
import { captureSpec } from "../../../src/agent/desire.ts";
import { AgentError } from "../../../src/core/errors.ts";
import { eventually, FakeParts, makePod } from "../../fakes/parts.ts";

let agent: Agent | undefined;

afterEach(async () => {
  await agent?.stop();
  agent = undefined;
});

function captured(parts: FakeParts, name: string, ips = ["10.0.0.2"]) {
  const pod = parts.run(name, { annotations: { "ambient.istio.io/redirection": "enabled" }, ips });
  const { spec } = captureSpec(parts.config, pod, pod.ips, parts.nameservers);
  parts.dataplane.kernel.set(`ns-${name}`, { mode: "captured", prepared: true, spec: JSON.stringify(spec) });
  return pod;
}

async function startAgent(parts: FakeParts, sweepMs = 1e9): Promise<Agent> {
  agent = new Agent(parts, sweepMs);
  await agent.start();
  return agent;
}

describe("start", () => {
  test("adopts captured pods without touching them, and serves ztunnel only afterwards", async () => {
    const parts = new FakeParts();
    parts.ztunnel.connected = false;
    captured(parts, "web");
    captured(parts, "api", ["10.0.0.3"]);
    await startAgent(parts);
    expect(parts.ztunnel.snapshot?.().map(({ workload, netns }) => [workload.name, netns?.id])).toEqual([
      ["web", "ns-web"],
      ["api", "ns-api"],
    ]);
    await eventually("quiet", () => agent?.reconciler.queue.depth === 0);
    expect(parts.journal).toEqual(["ztunnel listen", "ztunnel serve"]);
    expect([...parts.probes.entries.keys()]).toEqual(["10.0.0.2", "10.0.0.3"]);
  });

  test("an agent that is told to end while it starts does not begin its work afterwards", async () => {
    const parts = new FakeParts();
    captured(parts, "web");
    let proved: () => void = () => undefined;
    parts.dataplane.start = () =>
      new Promise((resolve) => {
        proved = () => resolve([]);
      });
    const due = new Set<() => void>();
    Object.assign(parts, {
      clock: {
        now: () => 0,
        after: (_ms: number, task: () => void) => {
          due.add(task);
          return () => due.delete(task);
        },
      },
    });
    agent = new Agent(parts, 30);
    const start = agent.start();
    await eventually("it proves its engines", () => parts.journal.includes("ztunnel listen"));
    await agent.stop();
    proved();
    await start;
    expect(parts.journal).toEqual(["ztunnel listen"]);
    expect(parts.finder.openHandles.size).toBe(0);
    expect(due.size).toBe(0);
  });

  test("a pod whose netns is not found yet is kept, not dropped from ztunnel", async () => {
    const parts = new FakeParts();
    parts.ztunnel.connected = false;
    captured(parts, "web");
    parts.finder.proc.clear();
    await startAgent(parts);
    expect(parts.ztunnel.snapshot?.()).toMatchObject([{ workload: { name: "web" }, netns: undefined }]);
  });

  test("rules that differ are repaired without waiting for a ztunnel", async () => {
    const parts = new FakeParts();
    parts.ztunnel.connected = false;
    captured(parts, "web");
    const state = parts.dataplane.kernel.get("ns-web");
    if (state !== undefined) state.spec = "an older version";
    await startAgent(parts);
    await eventually("repaired", () => parts.journal.includes("capture shop/web"));
    expect(parts.journal).not.toContain("release ns-web");
  });

  test("a pod that istio-cni has captured is taken over before a ztunnel comes, and its probes wear their address", async () => {
    const parts = new FakeParts();
    parts.ztunnel.connected = false;
    const pod = parts.run("web", { annotations: { "ambient.istio.io/redirection": "enabled" } });
    parts.dataplane.upstreams.add("ns-web");
    parts.dataplane.engine = "ebpf";
    await startAgent(parts);
    expect([...parts.probes.engines]).toEqual([[pod.uid, "nftables"]]);
    expect(parts.ztunnel.snapshot?.()).toMatchObject([{ workload: { name: "web" }, netns: { id: "ns-web" } }]);
    await eventually("taken over", () => parts.journal.includes("capture shop/web"));
    expect(parts.journal).not.toContain("release ns-web");
  });

  test("a pod of istio-cni's whose label went with it is released", async () => {
    const parts = new FakeParts();
    parts.run("web", {
      annotations: { "ambient.istio.io/redirection": "enabled" },
      labels: { "istio.io/dataplane-mode": "none" },
    });
    parts.dataplane.upstreams.add("ns-web");
    await startAgent(parts);
    await eventually("released", () => parts.journal.includes("release ns-web"));
    expect(parts.journal).not.toContain("capture shop/web");
  });

  test("what slipped in while no agent was there is captured with an Event", async () => {
    const parts = new FakeParts();
    parts.lastAliveAt = 1000;
    parts.run("late", { createdAt: 2000 });
    parts.run("old", { createdAt: 500, ips: ["10.0.0.3"] });
    await startAgent(parts);
    await eventually("events", () => parts.cluster.events.length > 0);
    await eventually("all", () => agent?.pods().every(({ state }) => state === "enrolled") ?? false);
    expect(parts.cluster.events.map((line) => line.split(":")[0])).toEqual(["AmbientCapturedLate late"]);
  });

  test("a pod that ended while the agent was away loses its annotation", async () => {
    const parts = new FakeParts();
    parts.cluster.putPod(
      makePod("job", { phase: "Succeeded", annotations: { "ambient.istio.io/redirection": "enabled" } }),
    );
    await startAgent(parts);
    await eventually("un-annotated", () => parts.journal.includes("annotate job null"));
    await eventually("forgotten", () => agent?.roster.size === 0);
  });

  test("what ztunnel was told to keep of a pod without processes is forgotten once the pod is found outside the mesh", async () => {
    const parts = new FakeParts();
    parts.ztunnel.connected = false;
    parts.cluster.putPod(makePod("web", { annotations: { "ambient.istio.io/redirection": "enabled" } }));
    await startAgent(parts);
    parts.ztunnel.connect();
    expect([...parts.ztunnel.known]).toEqual([["uid-web", undefined]]);
    await eventually("pending", () => parts.journal.includes("annotate web pending"));
    parts.cluster.putNamespace("shop", {});
    await eventually("un-annotated", () => parts.journal.includes("annotate web null"));
    parts.finder.proc.set("uid-web", "ns-web");
    await eventually("forgotten", () => parts.ztunnel.known.size === 0);
  });

  test("publishes the namespaces that the plugin may let through without us", async () => {
    const parts = new FakeParts();
    parts.cluster.putNamespace("plain", {});
    parts.cluster.putNamespace("mixed", {});
    parts.run("one", { namespace: "mixed", labels: { "istio.io/dataplane-mode": "ambient" } });
    await startAgent(parts);
    expect(parts.published.at(-1)).toEqual(["plain"]);
    parts.cluster.putNamespace("plain", { "istio.io/dataplane-mode": "ambient" });
    await eventually("rewritten", () => parts.published.at(-1)?.length === 0);
  });

  test("a namespace that a selector names is not clear, even if the selector wants more of the pod", async () => {
    const parts = new FakeParts({
      enablementSelectors: [
        {
          podSelector: { requirements: [{ key: "app", operator: "In", values: ["web"] }] },
          namespaceSelector: { requirements: [{ key: "team", operator: "In", values: ["a"] }] },
        },
      ],
    });
    parts.cluster.putNamespace("named", { team: "a" });
    parts.cluster.putNamespace("plain", { team: "b" });
    await startAgent(parts);
    expect(parts.published.at(-1)).toEqual(["plain", "shop"]);
  });

  test("stop closes every netns and leaves pods captured", async () => {
    const parts = new FakeParts();
    captured(parts, "web");
    await startAgent(parts);
    await agent?.stop();
    expect(parts.finder.openHandles.size).toBe(0);
    expect(parts.dataplane.kernel.get("ns-web")?.mode).toBe("captured");
    expect(parts.journal.some((line) => line.startsWith("zds del"))).toBe(false);
  });
});

describe("sweep", () => {
  test("a pod that lives in another netns under the same uid is enrolled there", async () => {
    const parts = new FakeParts();
    captured(parts, "web");
    await startAgent(parts, 30);
    await eventually("adopted", () => agent?.pods()[0]?.acked === true);
    parts.finder.proc.set("uid-web", "ns-replaced");
    await eventually("captured there", () => parts.dataplane.kernel.get("ns-replaced")?.mode === "captured");
    await eventually("told ztunnel", () => parts.ztunnel.known.get("uid-web") === "ns-replaced");
    await eventually("one handle", () => parts.finder.openHandles.size <= 2);
  });

  test("a pod without processes is announced as pending, and enrolled again when they are back", async () => {
    const parts = new FakeParts();
    captured(parts, "web");
    await startAgent(parts, 30);
    await eventually("adopted", () => agent?.pods()[0]?.acked === true);
    const enrollment = agent?.roster.get("uid-web");
    if (enrollment !== undefined) enrollment.enrolledSince = parts.clock.now() - 120_000;
    parts.finder.proc.delete("uid-web");
    await eventually("pending", () => parts.journal.includes("annotate web pending"));
    expect(agent?.missing()).toEqual(["pod shop/web: NETNS_NOT_FOUND"]);
    parts.finder.proc.set("uid-web", "ns-web");
    await eventually("back", () => parts.journal.includes("annotate web enabled"));
  });
});

test("no young pod is lost because the wall clock jumps, as at the boot of a node or after its sleep", async () => {
  const parts = new FakeParts();
  await startAgent(parts, 30);
  parts.cluster.putPod(makePod("web", { phase: "Pending", ips: [] }));
  const request = { containerId: "c1", netns: "/ns/1", ifName: "eth0", podNamespace: "shop", podName: "web" };
  await agent?.admission.add({ ...request, podUid: "uid-web", ips: ["10.0.0.2"] }, new AbortController().signal);
  parts.cluster.putPod(makePod("web", { ips: ["10.0.0.2"] }));
  const now = Date.now() + 3_600_000;
  const clock = vi.spyOn(Date, "now").mockImplementation(() => now);
  try {
    const { passes } = parts.finder;
    await vi.waitFor(() => expect(parts.finder.passes).toBeGreaterThan(passes + 3), { timeout: 10_000 });
    expect(agent?.roster.get("uid-web")?.lost).toBe(false);
    expect(parts.journal).not.toContain("annotate web pending");
  } finally {
    clock.mockRestore();
  }
});

describe("with ambient off", () => {
  const off = { ambientEnabled: false };
  const sidecar = {
    annotations: { "sidecar.istio.io/status": "" },
    containers: ["istio-proxy"],
    proxy: { uid: undefined, gid: undefined, role: "sidecar", env: {} },
  };

  test("sidecar pods are served, without engine, ztunnel or anything on the host", async () => {
    const parts = new FakeParts(off);
    parts.dataplane.startError = new AgentError("NO_ENGINE", "no engine works");
    parts.run("labelled", { labels: { "istio.io/dataplane-mode": "ambient" } });
    const started = await startAgent(parts);
    parts.cluster.putPod(makePod("web", { phase: "Pending", ips: [], ...sidecar }));
    const request = { containerId: "c", netns: "/ns/web", ifName: "eth0", podNamespace: "shop", podName: "web" };
    const { signal } = new AbortController();
    const add = () => started.admission.add({ ...request, podUid: undefined, ips: ["10.0.0.9"] }, signal);
    expect(await add()).toBe("sidecar");
    expect(parts.journal).toEqual(["bequeath ", "warm sidecars", "redirect shop/web"]);
    expect(started.missing()).toEqual([]);
    const { components } = started.report.status({
      version: "1",
      kernel: "6",
      upSeconds: 1,
      plugin: { verdict: "ok", text: "" },
    });
    expect(components.map(({ name, verdict, text }) => `${name} ${verdict} ${text}`)).toEqual([
      "cni plugin ok ",
      expect.stringMatching(/^kubernetes ok/),
      "ztunnel ok not needed: ambient is off",
      "dataplane ok not needed: ambient is off",
      "pods ok 0 enrolled, 1 sidecar, 1 not in mesh",
      "drift ok nothing had to be repaired since the start",
    ]);
  });

  test("pods that were captured before leave the mesh, without a ztunnel", async () => {
    const parts = new FakeParts(off);
    parts.ztunnel.connected = false;
    captured(parts, "web");
    await startAgent(parts);
    await eventually("released", () => parts.journal.includes("release ns-web"));
    await eventually("annotation removed", () => parts.journal.includes("annotate web null"));
    expect(parts.journal.some((entry) => entry.startsWith("ztunnel"))).toBe(false);
  });

  test("where they can't be released, sidecar pods are served all the same", async () => {
    const parts = new FakeParts(off);
    parts.dataplane.startError = new AgentError("NO_ENGINE", "no engine works");
    captured(parts, "web");
    await startAgent(parts);
    await eventually("quiet", () => agent?.reconciler.queue.depth === 0);
    expect(parts.dataplane.kernel.get("ns-web")?.mode).toBe("captured");
    // Their probes go on.
    expect(parts.journal).toEqual(["warm sidecars"]);
  });
});
