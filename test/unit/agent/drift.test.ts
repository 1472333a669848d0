// SPDX-License-Identifier: Apache-2.0
// What others change is seen, put right where it is ours, and said: also where no queue looks.
import { afterEach, describe, expect, test } from "vitest";
import { Agent } from "../../../src/agent/agent.ts";
import { AgentError } from "../../../src/core/errors.ts";
import type { Pod } from "../../../src/core/pod.ts";
import { parseDocument } from "../../../src/core/report/documents.ts";
import { DriftLedger } from "../../../src/telemetry/drift-ledger.ts";
import { eventually, FakeParts, silent } from "../../fakes/parts.ts";
import { MetricRecorder } from "../../support/recorder.ts";

const FACTS = { version: "1", kernel: "6", upSeconds: 1, plugin: { verdict: "ok", text: "" } } as const;

class Parts extends FakeParts {
  override readonly metrics = new MetricRecorder();
  override readonly drift = new DriftLedger(this.metrics);
  readonly errors: string[] = [];
  override readonly logger = { ...silent, error: (message: string) => void this.errors.push(message) };
  repairs(what: string): number {
    return this.metrics.counts.get(`ambient_cni_drift_repairs_total${JSON.stringify({ what })}`) ?? 0;
  }
}

let agent: Agent | undefined;
afterEach(async () => {
  await agent?.stop();
  agent = undefined;
});

async function start(parts: Parts): Promise<Agent> {
  agent = new Agent(parts, 1e9, { periodMs: 1e9, podsEvery: 1 });
  await agent.start();
  await eventually("quiet", () => agent?.reconciler.queue.depth === 0);
  return agent;
}

const status = () => parseDocument("status", JSON.parse(JSON.stringify(agent?.report.status(FACTS))));
const line = (name: string) => status().components.find((component) => component.name === name);
const pod = (name: string) => agent?.report.pods().pods.find((one) => one.name === name);
const timeline = (uid: string) => agent?.report.decisions(uid).pods.flatMap(({ decisions }) => decisions) ?? [];

test("drift of a captured pod is counted, in its timeline, and in status with the pod and what it was", async () => {
  const parts = new Parts();
  const web = parts.run("web");
  await start(parts);
  await eventually("enrolled", () => pod("web")?.mesh === "enrolled");
  expect(line("drift")).toEqual({
    name: "drift",
    verdict: "ok",
    text: "nothing had to be repaired since the start",
  });
  expect(status().drift).toEqual({ repaired: 0, kinds: {}, broken: {}, last: null });
  parts.dataplane.kernel.set("ns-web", { mode: "captured", prepared: true, spec: "another" });
  parts.dataplane.touched("ns-web");
  await eventually("repaired", () => parts.repairs("capture") === 1);
  expect(line("drift")?.text).toMatch(
    /^1 repaired since the start \(capture 1\), last \ds ago: shop\/web: rules differ$/,
  );
  expect(status().drift?.last).toMatchObject({ what: "capture", pod: "shop/web", detail: "rules differ" });
  expect(timeline(web.uid).at(-1)).toMatchObject({ what: "repaired", detail: "rules differ" });
  expect(parts.metrics.gauges.get("ambient_cni_drift_last_repair_timestamp_seconds{}")).toBeGreaterThan(1.7e9);
});

test("a pod that is repaired again and again is a warning", async () => {
  const parts = new Parts();
  parts.run("web");
  const started = await start(parts);
  await eventually("enrolled", () => pod("web")?.mesh === "enrolled");
  for (let turn = 1; turn <= 5; turn++) {
    parts.dataplane.kernel.set("ns-web", { mode: "captured", prepared: true, spec: "another" });
    started.reconciler.queue.trigger("uid-web");
    await eventually("repaired", () => parts.repairs("capture") === turn);
  }
  expect(line("drift")).toMatchObject({ verdict: "warn" });
  expect(line("drift")?.text).toMatch(/shop\/web repaired 5 times in a row: somebody keeps changing it$/);
});

test("an attempt that fails is no repair", async () => {
  const parts = new Parts();
  parts.run("web");
  const started = await start(parts);
  await eventually("enrolled", () => pod("web")?.mesh === "enrolled");
  const repairs = started.roster.get("uid-web")?.repairs;
  parts.dataplane.kernel.set("ns-web", { mode: "captured", prepared: true, spec: "another" });
  parts.dataplane.captureError = new AgentError("EBUSY", "tc add eth0: EBUSY");
  started.reconciler.queue.trigger("uid-web");
  await eventually("failed twice", () => started.reconciler.queue.attempts("uid-web") >= 2);
  expect(repairs?.count(parts.clock.now())).toBe(0);
  parts.dataplane.captureError = undefined;
  await eventually("repaired", () => parts.repairs("capture") === 1);
  expect(repairs?.count(parts.clock.now())).toBe(1);
});

test("what all pods share is put back, and is the node's", async () => {
  const parts = new Parts();
  const { patrol } = await start(parts);
  await patrol.run();
  expect(parts.repairs("hooks")).toBe(0);
  parts.dataplane.unhooked = ["program ambient_connect4 is not attached"];
  await patrol.run();
  expect(parts.repairs("hooks")).toBe(1);
  expect(line("drift")?.text).toMatch(/ago: the node: program ambient_connect4 is not attached$/);
});

test("a pod that misses what all pods share has no drift of its own: one cause is one count, whoever sees it first", async () => {
  const parts = new Parts();
  for (const name of ["web", "cart", "batch"]) parts.run(name);
  const started = await start(parts);
  await eventually("enrolled", () => ["web", "cart", "batch"].every((name) => pod(name)?.mesh === "enrolled"));
  parts.dataplane.unhooked = ["program ambient_connect4 is not attached"];
  for (const name of ["web", "cart", "batch"]) started.reconciler.queue.trigger(`uid-${name}`);
  await eventually("repaired", () => parts.repairs("hooks") === 1 && started.reconciler.queue.depth === 0);
  expect(parts.repairs("capture")).toBe(0);
  expect(status().drift).toMatchObject({ repaired: 1, kinds: { hooks: 1 }, last: { pod: null } });
  // What was the pod's own is counted as its own.
  parts.dataplane.unhooked = ["program ambient_connect4 is not attached"];
  parts.dataplane.kernel.set("ns-web", { mode: "captured", prepared: true, spec: "another" });
  started.reconciler.queue.trigger("uid-web");
  await eventually("both are repaired", () => parts.repairs("capture") === 1 && parts.repairs("hooks") === 2);
  expect(status().drift?.last).toMatchObject({ what: "capture", pod: "shop/web", detail: "rules differ" });
});

test("a new pod's enrolment does not hide that what all pods share was missing", async () => {
  const parts = new Parts();
  await start(parts);
  parts.dataplane.unhooked = ["program ambient_connect4 is not attached"];
  parts.run("web");
  await eventually("enrolled", () => pod("web")?.mesh === "enrolled");
  expect(parts.repairs("hooks")).toBe(1);
  expect(parts.repairs("capture")).toBe(0);
});

test("whoever takes what all pods share may have taken more: each pod is looked at then", async () => {
  const parts = new Parts();
  parts.run("web");
  const { patrol } = await start(parts);
  await eventually("enrolled", () => pod("web")?.mesh === "enrolled");
  parts.dataplane.kernel.set("ns-web", { mode: "captured", prepared: true, spec: "another" });
  await patrol.run();
  expect(parts.repairs("capture")).toBe(0);
  parts.dataplane.unhooked = ["the programs and maps are not pinned any more"];
  await patrol.run();
  await eventually("repaired", () => parts.repairs("capture") === 1);
});

test("what all pods share and can't be put back is an error of the node, until it can", async () => {
  const parts = new Parts();
  const { patrol } = await start(parts);
  const mend = parts.dataplane.mendShared.bind(parts.dataplane);
  parts.dataplane.mendShared = () => {
    throw new AgentError("ENOENT", "make /sys/fs/bpf/x: No such file or directory");
  };
  await patrol.run();
  await patrol.run();
  expect(parts.errors).toEqual(["what all pods are captured by can't be repaired"]);
  expect(line("drift")?.verdict).toBe("error");
  expect(line("drift")?.text).toMatch(
    /^what all pods are captured by can't be repaired: make \/sys\/fs\/bpf\/x: No such file or directory; nothing had/,
  );
  expect(status().drift?.broken).toEqual({ hooks: "make /sys/fs/bpf/x: No such file or directory" });
  parts.dataplane.mendShared = mend;
  await patrol.run();
  expect(line("drift")?.verdict).toBe("ok");
  expect(status().drift?.broken).toEqual({});
});

test("what all pods share does not wait for a look at pods that takes long", async () => {
  const parts = new Parts();
  parts.run("out", { labels: { "istio.io/dataplane-mode": "none" } });
  let looking = 0;
  let found: () => void = () => undefined;
  parts.finder.find = () => {
    looking += 1;
    return new Promise((resolve) => {
      found = () => resolve(new Map());
    });
  };
  agent = new Agent(parts, 1e9, { periodMs: 5, podsEvery: 1 });
  const starting = agent.start();
  await eventually("adopts", () => looking === 1);
  found();
  await starting;
  await eventually("looks at pods", () => looking === 2);
  parts.dataplane.unhooked = ["program ambient_connect4 is not attached"];
  await eventually("repaired", () => parts.repairs("hooks") === 1);
  expect(looking).toBe(2);
  found();
});

describe("captured and not of the mesh", () => {
  const out = { labels: { "istio.io/dataplane-mode": "none" } };

  test("is seen at the next look, and released", async () => {
    const parts = new Parts();
    parts.run("out", out);
    parts.run("clean", out);
    const { patrol, roster } = await start(parts);
    parts.dataplane.kernel.set("ns-out", { mode: "captured", prepared: true, spec: "whose?" });
    const drain = parts.dataplane.drain.bind(parts.dataplane);
    let release: () => void = () => undefined;
    parts.dataplane.drain = async (...given) => {
      await new Promise<void>((resolve) => {
        release = resolve;
      });
      await drain(...given);
    };
    await patrol.run();
    expect(pod("out")).toMatchObject({ mesh: "unwanted", reason: "opted-out" });
    expect(pod("clean")).toMatchObject({ mesh: "none" });
    expect(line("pods")).toMatchObject({ verdict: "warn", text: "0 enrolled, 1 captured unwanted, 1 not in mesh" });
    await eventually("it is being drained", () => agent?.reconciler.queue.running.has("uid-out") === true);
    release();
    await eventually("released", () => roster.size === 0);
    expect(parts.dataplane.kernel.has("ns-out")).toBe(false);
    expect(pod("out")).toMatchObject({ mesh: "none" });
    expect(timeline("uid-out").map(({ what }) => what)).toEqual(["found captured", "draining", "released"]);
    expect(parts.repairs("unwanted")).toBe(1);
    expect(parts.finder.openHandles.size).toBe(0);
  });

  test("not while its namespace is unknown, nor when it joins the mesh during the look", async () => {
    const parts = new Parts();
    parts.run("unknown", { namespace: "later" });
    const joins = parts.run("joins", out);
    const { patrol, roster } = await start(parts);
    for (const name of ["unknown", "joins"]) {
      parts.dataplane.kernel.set(`ns-${name}`, { mode: "captured", prepared: true, spec: "whose?" });
    }
    const looked = patrol.run();
    parts.cluster.putPod({ ...joins, labels: {}, resourceVersion: "later" });
    await looked;
    await eventually("enrolled", () => pod("joins")?.mesh === "enrolled");
    expect([...roster.all()].map(({ name }) => name)).toEqual(["shop/joins"]);
    expect(parts.journal.filter((entry) => entry.startsWith("release"))).toEqual([]);
    expect(parts.repairs("unwanted")).toBe(0);
  });
});

describe("a sidecar pod's redirection", () => {
  const injected = {
    annotations: { "sidecar.istio.io/status": "" },
    containers: ["app", "istio-proxy"],
    proxy: { uid: undefined, gid: undefined, role: "sidecar", env: {} },
  } satisfies Partial<Pod>;

  test("that is ours and was changed, or taken away, is written again and said", async () => {
    const parts = new Parts();
    const web = parts.run("web", injected);
    const { patrol } = await start(parts);
    const request = { containerId: "c", netns: "ns-web", ifName: "eth0", podNamespace: "shop", podName: "web" };
    await agent?.admission.add(
      { ...request, netns: "/ns-web", podUid: undefined, ips: web.ips },
      new AbortController().signal,
    );
    const right = parts.sidecars.kernel.get("/ns-web") ?? "";
    parts.sidecars.kernel.set("ns-web", right);
    await patrol.run();
    expect(parts.repairs("redirection")).toBe(0);
    parts.sidecars.kernel.set("ns-web", "changed");
    await patrol.run();
    expect(parts.sidecars.kernel.get("ns-web")).toBe(right);
    expect(timeline(web.uid).at(-1)).toMatchObject({ what: "repaired", reason: "redirection", detail: "rules differ" });
    expect(line("drift")?.text).toMatch(/redirection 1\), last \ds ago: shop\/web: rules differ$/);
    // At once again would be a fight: the next one has to wait.
    parts.sidecars.kernel.delete("ns-web");
    await patrol.run();
    expect(parts.repairs("redirection")).toBe(1);
    expect(pod("web")).toMatchObject({ mesh: "sidecar", failure: { code: "NOT_REDIRECTED" } });
    await eventually("the pause is over", () => {
      void patrol.run();
      return parts.repairs("redirection") === 2;
    });
    expect(parts.sidecars.kernel.get("ns-web")).toBe(right);
    expect(line("drift")?.verdict).toBe("ok");
  });

  test("that was never there is a problem and no repair; somebody else's, or one of other settings, is neither", async () => {
    const parts = new Parts();
    for (const name of ["bare", "theirs", "older"]) parts.run(name, injected);
    const { patrol } = await start(parts);
    parts.sidecars.kernel.set("ns-theirs", "foreign");
    parts.sidecars.kernel.set("ns-older", "outdated");
    await patrol.run();
    expect(parts.journal.filter((entry) => entry.startsWith("redirect"))).toEqual([]);
    expect(status().problems.map(({ object, code }) => `${object} ${code}`)).toEqual(["shop/bare NOT_REDIRECTED"]);
    expect(line("drift")).toMatchObject({
      verdict: "warn",
      text: "nothing had to be repaired since the start; 1 sidecar pod without redirection: shop/bare",
    });
    agent?.measure();
    const gauge = (redirection: string) =>
      parts.metrics.gauges.get(`ambient_cni_sidecar_pods${JSON.stringify({ redirection })}`);
    expect(["absent", "foreign", "outdated"].map(gauge)).toEqual([1, 1, 1]);
    parts.sidecars.kernel.set("ns-bare", "foreign");
    await patrol.run();
    expect(line("drift")).toMatchObject({ verdict: "ok" });
  });

  test("where the node's /proc is not mounted nobody looks, and that is no failure of each turn", async () => {
    const parts = new Parts();
    parts.run("web", injected);
    const { patrol } = await start(parts);
    parts.finder.find = () => Promise.reject(new AgentError("PROC_UNREADABLE", "it is not mounted"));
    await patrol.run();
    expect(status().problems).toEqual([]);
    expect(await agent?.inspection({ prove: async () => [] }).inspect("uid-web")).toMatchObject({
      eligibility: { verdict: "sidecar" },
      desired: { mode: "REDIRECT" },
      facts: [{ name: "netns", ok: null, text: "it is not mounted" }],
    });
    parts.finder.find = () => Promise.reject(new AgentError("PROC_BROKEN", "anything else"));
    await expect(patrol.run()).rejects.toThrow("anything else");
  });

  test("that can't be written again says why", async () => {
    const parts = new Parts();
    parts.run("web", injected);
    const { patrol } = await start(parts);
    parts.sidecars.kernel.set("ns-web", "changed");
    parts.sidecars.error = new Error("nft says no");
    await patrol.run();
    expect(pod("web")?.failure).toMatchObject({
      code: "REDIRECTION_DIFFERS",
      message: "rules differ; it can't be repaired: nft says no",
    });
  });
});

describe("a pod on its way out blames nobody", () => {
  async function captured(parts: Parts): Promise<Pod> {
    const web = parts.run("web");
    await start(parts);
    await eventually("enrolled", () => pod("web")?.mesh === "enrolled");
    await eventually("quiet", () => agent?.reconciler.queue.depth === 0);
    return parts.cluster.pod(web.uid) ?? web;
  }
  /** The runtime takes the pod's interface away. */
  function takeDown(parts: Parts): void {
    parts.finder.emptied.add("ns-web");
    parts.dataplane.kernel.set("ns-web", { mode: "captured", prepared: true, spec: "no interface" });
    parts.dataplane.captureError = new Error("its runtime class (gVisor, for one) handles packets itself");
    parts.dataplane.touched("ns-web");
  }
  const whats = () => timeline("uid-web").map(({ what }) => what);

  test.each([
    ["is being deleted", true],
    ["has no process any more", false],
  ])("when it %s: no failure, no Event, no repair", async (_how, deleting) => {
    const parts = new Parts();
    const web = await captured(parts);
    if (deleting) parts.cluster.putPod({ ...web, deleting: true, resourceVersion: "later" });
    else parts.finder.proc.delete("uid-web");
    takeDown(parts);
    await eventually("noticed", () => whats().includes("sandbox gone"));
    expect(whats()).not.toContain("pass failed");
    expect(pod("web")).toMatchObject({ mesh: "pending", reason: "SANDBOX_GONE", failure: null });
    expect(status().problems).toEqual([]);
    expect(agent?.missing()).toEqual([]);
    expect(parts.cluster.events).toEqual([]);
    expect(parts.repairs("capture")).toBe(0);
    parts.cluster.deletePod("uid-web");
    await eventually("forgotten", () => whats().includes("forgotten"));
  });

  test("one that was never captured and goes is not blamed either; one that runs without an address is told why not", async () => {
    const parts = new Parts();
    parts.finder.emptied.add("ns-web");
    parts.dataplane.captureError = new Error("its runtime class (gVisor, for one) handles packets itself");
    const web = parts.run("web");
    await start(parts);
    await eventually("told", () => pod("web")?.failure?.message.includes("gVisor") === true);
    const told = whats().filter((what) => what === "pass failed").length;
    parts.cluster.putPod({ ...web, deleting: true, resourceVersion: "later" });
    await eventually("going", () => pod("web")?.reason === "SANDBOX_GONE");
    expect(whats().filter((what) => what === "pass failed")).toHaveLength(told);
  });

  test("one whose processes go on without an address is told what it lacks, and is well again when it comes back", async () => {
    const parts = new Parts();
    await captured(parts);
    takeDown(parts);
    await eventually("told", () => pod("web")?.failure !== null);
    expect(pod("web")?.failure).toMatchObject({ code: "ADDRESS_LOST" });
    expect(pod("web")?.failure?.message).toMatch(/is on an interface of its netns any more, and its processes go on$/);
    parts.finder.emptied.clear();
    parts.dataplane.captureError = undefined;
    parts.dataplane.touched("ns-web");
    await eventually("captured again", () => pod("web")?.mesh === "enrolled");
  });
});
