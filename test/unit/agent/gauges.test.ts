// SPDX-License-Identifier: Apache-2.0
// What a scrape finds: pods and queue as they are at that moment, and verdicts that only grow.
import { afterEach, describe, expect, test } from "vitest";
import { Agent } from "../../../src/agent/agent.ts";
import { systemClock } from "../../../src/core/clock.ts";
import { PromMetrics } from "../../../src/telemetry/metrics.ts";
import { eventually, FakeParts } from "../../fakes/parts.ts";

class Measured extends FakeParts {
  override readonly metrics = new PromMetrics("v");
  /** Of which the agent's clock is ahead, in ms. */
  ahead = 0;
  override readonly clock = { ...systemClock, now: () => systemClock.now() + this.ahead };
}

let agent: Agent | undefined;
afterEach(async () => {
  await agent?.stop();
  agent = undefined;
});

async function start(parts: Measured): Promise<Agent> {
  const started = new Agent(parts, 1e9);
  agent = started;
  parts.metrics.onScrape(() => started.measure());
  await started.start();
  return started;
}

async function settled(state: string): Promise<void> {
  await eventually(state, () => agent?.pods()[0]?.state === state);
  await eventually("quiet", () => agent?.reconciler.queue.depth === 0);
}

/** Series that are not 0, by name. */
async function scrape(parts: Measured, name: string): Promise<string[]> {
  const lines = (await parts.metrics.text()).split("\n");
  return lines.filter((line) => line.startsWith(name) && !line.endsWith(" 0")).map((line) => line.slice(name.length));
}

describe("pods", () => {
  test("by state, engine, and what is not as it should be", async () => {
    const parts = new Measured();
    const pod = parts.run("web");
    parts.run("out", { labels: { "istio.io/dataplane-mode": "none" } });
    await start(parts);
    await settled("enrolled");
    expect(await scrape(parts, "ambient_cni_pods")).toEqual([
      '{state="enrolled",reason="selected"} 1',
      '{state="none",reason="opted-out"} 1',
    ]);
    expect(await scrape(parts, "ambient_cni_captured_pods")).toEqual(['{engine="nftables"} 1']);
    expect(await scrape(parts, "ambient_cni_astray_pods")).toEqual([]);
    expect(await scrape(parts, "ambient_cni_kube_watch_age_seconds")).toEqual([
      '{resource="pods"} 41',
      '{resource="namespaces"} 41',
    ]);
    parts.cluster.deletePod(pod.uid);
    await eventually("gone", () => agent?.roster.size === 0);
    expect(await scrape(parts, "ambient_cni_pods")).toEqual(['{state="none",reason="opted-out"} 1']);
    expect(await scrape(parts, "ambient_cni_captured_pods")).toEqual([]);
  });

  test("one that belongs to the mesh and is not captured, with the code", async () => {
    const parts = new Measured();
    parts.dataplane.captureError = new Error("no");
    parts.run("web");
    await start(parts);
    await eventually("failing", () => agent?.pods()[0]?.state === "failing");
    expect(await scrape(parts, "ambient_cni_astray_pods")).toEqual(['{kind="not_captured",reason="UNKNOWN"} 1']);
    await eventually("sleeps", () => agent?.reconciler.queue.depth === 0);
    expect(await scrape(parts, "ambient_cni_queue_sleeping")).toEqual([" 1"]);
  });

  test("one that has left the mesh and can't be released", async () => {
    const parts = new Measured();
    const pod = parts.run("web");
    await start(parts);
    await settled("enrolled");
    parts.dataplane.drain = () => Promise.reject(new Error("nft says no"));
    const cached = parts.cluster.pod(pod.uid) ?? pod;
    parts.cluster.putPod({ ...cached, labels: { "istio.io/dataplane-mode": "none" }, resourceVersion: "later" });
    await eventually("told", () => parts.cluster.events.some((event) => event.startsWith("AmbientReleaseFailed web")));
    expect(agent?.pods()[0]).toMatchObject({ state: "unwanted", captured: true, detail: "nft says no" });
    expect(await scrape(parts, "ambient_cni_astray_pods")).toEqual(['{kind="not_wanted",reason="UNKNOWN"} 1']);
  });
});

describe("verdicts", () => {
  test("are summed over pods, and stay when a pod goes or its rules are written anew", async () => {
    const parts = new Measured();
    const web = parts.run("web");
    parts.run("api");
    await start(parts);
    await eventually("both", () => agent?.pods().every(({ state }) => state === "enrolled") === true);
    parts.dataplane.counted.set("ns-web", { outbound_captured: 5, inbound_hbone: 1 });
    parts.dataplane.counted.set("ns-api", { outbound_captured: 2 });
    const counted = () => scrape(parts, "ambient_cni_verdicts_total");
    const first = [
      '{engine="nftables",verdict="outbound_captured"} 7',
      '{engine="nftables",verdict="inbound_hbone"} 1',
    ];
    expect(await counted()).toEqual(first);
    // Scraped again at once: nothing is read.
    parts.dataplane.counted.set("ns-api", { outbound_captured: 4 });
    expect(await counted()).toEqual(first);
    // A pod's last decisions count too.
    parts.dataplane.counted.set("ns-web", { outbound_captured: 6, inbound_hbone: 1 });
    parts.cluster.deletePod(web.uid);
    await eventually("gone", () => agent?.roster.get(web.uid) === undefined);
    parts.ahead += 1100;
    expect((await counted())[0]).toBe('{engine="nftables",verdict="outbound_captured"} 10');
    parts.dataplane.counted.set("ns-api", { outbound_captured: 1 });
    parts.ahead += 1100;
    expect((await counted())[0]).toBe('{engine="nftables",verdict="outbound_captured"} 11');
  });

  test("that an agent before this one has seen are not its own", async () => {
    const parts = new Measured();
    parts.run("web", { annotations: { "ambient.istio.io/redirection": "enabled" } });
    await start(parts);
    await settled("enrolled");
    await agent?.stop();
    parts.dataplane.counted.set("ns-web", { outbound_captured: 1000 });
    const next = new Measured();
    for (const pod of parts.cluster.pods()) next.cluster.putPod(pod);
    next.finder.proc.set("uid-web", "ns-web");
    next.dataplane.kernel.set(
      "ns-web",
      parts.dataplane.kernel.get("ns-web") ?? { mode: "absent", prepared: false, spec: "" },
    );
    next.dataplane.counted.set("ns-web", { outbound_captured: 1000 });
    await start(next);
    await settled("enrolled");
    expect(await scrape(next, "ambient_cni_verdicts_total")).toEqual([]);
    next.dataplane.counted.set("ns-web", { outbound_captured: 1003 });
    next.ahead += 1100;
    expect(await scrape(next, "ambient_cni_verdicts_total")).toEqual([
      '{engine="nftables",verdict="outbound_captured"} 3',
    ]);
  });
});
