// SPDX-License-Identifier: Apache-2.0
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { Agent } from "../../../src/agent/agent.ts";
import { REROUTE_INTERFACES_ANNOTATION, SIDECAR_ANNOTATION } from "../../../src/core/constants.ts";
import { AgentError } from "../../../src/core/errors.ts";
import type { Pod } from "../../../src/core/pod.ts";
import type { CniPodRequest } from "../../../src/core/ports/cni.ts";
import { eventually, FakeParts, makePod } from "../../fakes/parts.ts";

let parts: FakeParts;
let agent: Agent;
const signal = new AbortController().signal;

beforeEach(async () => {
  parts = new FakeParts();
  agent = new Agent(parts, 1e9);
  await agent.start();
});
afterEach(() => agent.stop());

const request = (changes: Partial<CniPodRequest> = {}): CniPodRequest => ({
  containerId: "c1",
  netns: "/var/run/netns/cni-1",
  ifName: "eth0",
  podNamespace: "shop",
  podName: "web",
  podUid: "uid-web",
  ips: ["10.0.0.7"],
  ...changes,
});

const codeOf = async (promise: Promise<unknown>): Promise<string> => {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  return error instanceof AgentError ? error.code : String(error);
};

describe("ADD", () => {
  test("captures the pod in the netns of the request, with the runtime's addresses", async () => {
    parts.cluster.putPod(makePod("web", { phase: "Pending", ips: [] }));
    expect(await agent.admission.add(request(), signal)).toBe("ambient");
    expect(parts.dataplane.kernel.get("/var/run/netns/cni-1")?.spec).toContain("10.0.0.7");
    expect(parts.ztunnel.known.get("uid-web")).toBe("/var/run/netns/cni-1");
    expect(parts.journal.indexOf("zds add web")).toBeLessThan(parts.journal.indexOf("capture shop/web"));
  });

  test("uses the runtime's address, not the one the API still has from the sandbox before", async () => {
    parts.cluster.putPod(makePod("web", { phase: "Pending", ips: ["10.0.0.2"] }));
    await agent.admission.add(request(), signal);
    expect(parts.dataplane.kernel.get("/var/run/netns/cni-1")?.spec).toContain('"ips":["10.0.0.7"]');
    expect(parts.probes.entries.get("10.0.0.7")).toBe("uid-web");
  });

  test("passes a pod that is not in the mesh, and touches nothing", async () => {
    parts.cluster.putNamespace("plain", {});
    parts.cluster.putPod(makePod("web", { namespace: "plain" }));
    parts.journal.length = 0;
    expect(await agent.admission.add(request({ podNamespace: "plain" }), signal)).toBe("none");
    await eventually("quiet", () => agent.reconciler.queue.depth === 0);
    expect(parts.journal).toEqual([]);
  });

  test("asks the API once when the cache does not have the pod yet, and survives the cache being late", async () => {
    parts.cluster.live.set("shop/web", makePod("web", { phase: "Pending", ips: [] }));
    expect(await agent.admission.add(request(), signal)).toBe("ambient");
    agent.reconciler.queue.trigger("uid-web");
    await eventually("quiet", () => agent.reconciler.queue.depth === 0);
    expect(parts.dataplane.kernel.get("/var/run/netns/cni-1")?.mode).toBe("captured");
  });

  describe("a pod that was read live and that the watch does not bring in its time", () => {
    const late = async () => {
      const pod = makePod("web", { phase: "Pending", ips: [] });
      parts.cluster.live.set("shop/web", pod);
      await agent.admission.add(request(), signal);
      const enrollment = agent.roster.get(pod.uid);
      if (enrollment !== undefined) enrollment.admittedUntil = Date.now() - 1;
      return async () => {
        await agent.reconciler.queue.run(pod.uid).catch(() => undefined);
        await eventually("quiet", () => agent.reconciler.queue.depth === 0);
      };
    };

    test("stays captured and known to ztunnel while the API has it: a watch may be silent for minutes", async () => {
      const pass = await late();
      await pass();
      expect(parts.ztunnel.known.get("uid-web")).toBe("/var/run/netns/cni-1");
      expect(agent.roster.get("uid-web")?.state).toBe("enrolled");
      // And is not asked for with each pass.
      const reads = parts.cluster.reads.length;
      await pass();
      expect(parts.cluster.reads).toHaveLength(reads);
    });

    test("stays so while the API does not answer", async () => {
      const pass = await late();
      parts.cluster.readPod = () => Promise.reject(new AgentError("KUBE_TIMEOUT", "no answer"));
      await pass();
      expect(parts.ztunnel.known.get("uid-web")).toBe("/var/run/netns/cni-1");
    });

    test.each([
      ["gone", undefined],
      ["another one of that name", makePod("web", { uid: "uid-other" })],
    ])("is forgotten when it is %s", async (_what, now) => {
      const pass = await late();
      parts.cluster.live.clear();
      if (now !== undefined) parts.cluster.live.set("shop/web", now);
      await pass();
      expect(parts.ztunnel.known.has("uid-web")).toBe(false);
      expect(agent.roster.get("uid-web")).toBeUndefined();
      expect(parts.finder.openHandles.size).toBe(0);
    });

    test("is forgotten at once when the watch tells of its end, also while it is asked for", async () => {
      const pass = await late();
      parts.cluster.readPod = async () => {
        const pod = parts.cluster.live.get("shop/web");
        if (pod !== undefined) parts.cluster.putPod(pod);
        parts.cluster.deletePod("uid-web");
        return pod;
      };
      await pass();
      expect(agent.roster.get("uid-web")).toBeUndefined();
    });
  });

  test("does not take the previous pod of that name for the new one", async () => {
    parts.cluster.putPod(makePod("web", { uid: "uid-old" }));
    expect(await codeOf(agent.admission.add(request(), signal))).toBe("POD_NOT_FOUND");
    parts.cluster.live.set("shop/web", makePod("web", { phase: "Pending", ips: [] }));
    expect(await agent.admission.add(request(), signal)).toBe("ambient");
    expect(parts.ztunnel.known.has("uid-web")).toBe(true);
  });

  test("knows a static pod by its config hash", async () => {
    parts.cluster.putPod(
      makePod("web", { uid: "mirror", phase: "Pending", ips: [], annotations: { "kubernetes.io/config.hash": "abc" } }),
    );
    expect(await agent.admission.add(request({ podUid: "abc" }), signal)).toBe("ambient");
    expect(parts.ztunnel.known.has("mirror")).toBe(true);
  });

  test("an unknown namespace fails closed", async () => {
    parts.cluster.putPod(makePod("web", { namespace: "new" }));
    expect(await codeOf(agent.admission.add(request({ podNamespace: "new" }), signal))).toBe("NAMESPACE_NOT_FOUND");
  });

  test("no address, bad netns, no ztunnel: an error each, nothing kept", async () => {
    parts.cluster.putPod(makePod("web", { phase: "Pending", ips: [] }));
    expect(await codeOf(agent.admission.add(request({ ips: [] }), signal))).toBe("NO_POD_IP");
    expect(await codeOf(agent.admission.add(request({ netns: "relative" }), signal))).toBe("NETNS_PATH_INVALID");
    parts.ztunnel.connected = false;
    expect(await codeOf(agent.admission.add(request(), signal))).toBe("NO_ZTUNNEL");
    expect(parts.dataplane.kernel.size).toBe(0);
    expect(parts.finder.openHandles.size).toBe(0);
    // The runtime tries again with a new sandbox.
    parts.ztunnel.connected = true;
    expect(await agent.admission.add(request({ netns: "/var/run/netns/cni-2" }), signal)).toBe("ambient");
    expect(parts.dataplane.kernel.has("/var/run/netns/cni-2")).toBe(true);
  });

  test("a recreated sandbox under the same uid moves the capture", async () => {
    parts.cluster.putPod(makePod("web", { phase: "Pending", ips: [] }));
    await agent.admission.add(request(), signal);
    await agent.admission.add(request({ netns: "/var/run/netns/cni-2", ips: ["10.0.0.8"] }), signal);
    expect(parts.ztunnel.known.get("uid-web")).toBe("/var/run/netns/cni-2");
    expect(parts.probes.entries.has("10.0.0.7")).toBe(false);
    expect(parts.finder.openHandles.size).toBe(1);
  });
});

test("CHECK fails only for a pod that should be captured and is not", async () => {
  const added = makePod("web", { phase: "Running", ips: ["10.0.0.7"] });
  parts.cluster.putPod(added);
  await agent.admission.add(request(), signal);
  await agent.admission.check(request(), signal);
  await agent.admission.check(request({ podName: "unknown" }), signal);
  const state = parts.dataplane.kernel.get("/var/run/netns/cni-1");
  if (state !== undefined) state.spec = "flushed";
  expect(await codeOf(agent.admission.check(request(), signal))).toBe("NOT_CAPTURED");
});

describe("ADD of a sidecar pod", () => {
  const proxy = { uid: undefined, gid: undefined, role: "sidecar", env: {} };
  const sidecar = (changes: Partial<Pod> = {}) =>
    makePod("web", {
      phase: "Pending",
      ips: [],
      annotations: { "sidecar.istio.io/status": "" },
      containers: ["app", "istio-proxy"],
      proxy,
      ...changes,
    });
  const annotated = (name: string, value: string) =>
    sidecar({ annotations: { "sidecar.istio.io/status": "", [name]: value } });

  test("redirects it in the netns of the request, and neither captures nor keeps anything", async () => {
    parts.cluster.putPod(sidecar());
    expect(await agent.admission.add(request({ ips: ["10.0.0.7", "fd00::7"] }), signal)).toBe("sidecar");
    await eventually("quiet", () => agent.reconciler.queue.depth === 0);
    expect(parts.journal.filter((entry) => !entry.startsWith("ztunnel"))).toEqual(["redirect shop/web"]);
    expect(JSON.parse(parts.sidecars.kernel.get("/var/run/netns/cni-1") ?? "")).toMatchObject({ families: [4] });
    expect(parts.finder.openHandles.size).toBe(0);
    // (Its namespace is labelled for ambient.) The cache had it: the API server is neither asked nor told.
    expect([...parts.cluster.reads, ...parts.cluster.events]).toEqual([]);
    expect(agent.pods()).toMatchObject([{ state: "sidecar", reason: "sidecar-labelled" }]);
    expect(parts.decisions.of("uid-web").map(({ decision }) => decision)).toMatchObject([
      { what: "redirected", engine: "nftables", detail: "REDIRECT, IPv6 left alone: ISTIO_DUAL_STACK is off" },
      { what: "cni add", reason: "sidecar-labelled" },
    ]);
  });

  test("labelled for the mesh it is a sidecar pod all the same, as with upstream", async () => {
    parts.cluster.putPod(sidecar({ labels: { "istio.io/dataplane-mode": "ambient" } }));
    expect(await agent.admission.add(request(), signal)).toBe("sidecar");
    expect(parts.dataplane.kernel.size).toBe(0);
  });

  test("its settings are the API's when the cache is behind", async () => {
    parts.cluster.live.set("shop/web", annotated("sidecar.istio.io/interceptionMode", "TPROXY"));
    expect(await agent.admission.add(request(), signal)).toBe("sidecar");
    const written = JSON.parse(parts.sidecars.kernel.get("/var/run/netns/cni-1") ?? "");
    expect(written).toMatchObject({ deliver: { mark: 1337, table: 133 } });
    expect(parts.cluster.reads).toEqual(["shop/web"]);
  });

  test.each<[annotation: string, value: string, allowed: string]>([
    [SIDECAR_ANNOTATION.mode, "NONE", "one of REDIRECT, TPROXY"],
    [SIDECAR_ANNOTATION.includeOutboundIpRanges, "10.0.0.1", "a CIDR"],
    [SIDECAR_ANNOTATION.excludeOutboundIpRanges, "*", "a CIDR"],
    [SIDECAR_ANNOTATION.includeInboundPorts, "all", "a port from 0 to 65535"],
    [SIDECAR_ANNOTATION.excludeInboundPorts, "http", "a port from 0 to 65535"],
    [SIDECAR_ANNOTATION.includeOutboundPorts, "*", "a port from 0 to 65535"],
    [SIDECAR_ANNOTATION.excludeOutboundPorts, "65536", "a port from 0 to 65535"],
    [SIDECAR_ANNOTATION.excludeInterfaces, "eth 0", "the name of an interface"],
    [SIDECAR_ANNOTATION.kubevirtInterfaces, "tap+", "the name of an interface"],
    [REROUTE_INTERFACES_ANNOTATION, "-j", "the name of an interface"],
  ])("%s=%j stops it, naming annotation, value and what is allowed, before anything is touched", async (...one) => {
    const [name, value, allowed] = one;
    parts.cluster.putPod(annotated(name, value));
    const error = await agent.admission.add(request(), signal).catch((reason: unknown) => reason);
    expect(error).toMatchObject({
      code: "ANNOTATION_INVALID",
      message: expect.stringContaining(`annotation ${name}="${value}"`),
      remedy: expect.stringContaining(allowed),
    });
    expect(parts.sidecars.kernel.size).toBe(0);
    expect(parts.finder.openHandles.size).toBe(0);
  });

  test("a redirection that can't be written fails it; no address, bad netns too", async () => {
    parts.cluster.putPod(sidecar());
    parts.sidecars.error = new AgentError("NO_ENGINE", "neither nft nor iptables");
    expect(await codeOf(agent.admission.add(request(), signal))).toBe("NO_ENGINE");
    expect(await codeOf(agent.admission.add(request({ ips: [] }), signal))).toBe("NO_POD_IP");
    expect(await codeOf(agent.admission.add(request({ netns: "relative" }), signal))).toBe("NETNS_PATH_INVALID");
    expect(parts.finder.openHandles.size).toBe(0);
  });

  test("a netns that the plugin hands over is used and closed, and asking for it is no decision", async () => {
    parts.cluster.putPod(sidecar());
    const asking = request({ netns: "relative", mayHandOver: true });
    expect(await codeOf(agent.admission.add(asking, signal))).toBe("NETNS_PATH_INVALID");
    expect(parts.decisions.of("uid-web")).toEqual([]);
    const handed = () => parts.finder.open("/var/run/netns/cni-1");
    expect(await agent.admission.add(request({ netns: "relative", takeNetns: handed }), signal)).toBe("sidecar");
    expect(parts.sidecars.kernel.has("/var/run/netns/cni-1")).toBe(true);
    expect(parts.finder.openHandles.size).toBe(0);
  });

  test("a plugin that has given up gets nothing written", async () => {
    parts.cluster.putPod(sidecar());
    expect(await codeOf(agent.admission.add(request(), AbortSignal.abort()))).toBe("REQUEST_ABORTED");
    expect(parts.sidecars.kernel.size).toBe(0);
  });

  test("one that brings its own istio-init passes untouched", async () => {
    parts.cluster.putPod(sidecar({ initContainers: ["istio-init"] }));
    expect(await agent.admission.add(request(), signal)).toBe("none");
    expect(parts.sidecars.kernel.size).toBe(0);
  });

  test("CHECK fails only when nothing redirects it", async () => {
    parts.cluster.putPod(sidecar());
    expect(await codeOf(agent.admission.check(request(), signal))).toBe("NOT_CAPTURED");
    parts.sidecars.kernel.set("/var/run/netns/cni-1", "foreign");
    await agent.admission.check(request(), signal);
    await agent.admission.add(request({ netns: "/var/run/netns/cni-2" }), signal);
    await agent.admission.check(request({ netns: "/var/run/netns/cni-2" }), signal);
    // Annotations may have been changed since: the redirection is still there.
    parts.cluster.putPod(annotated("sidecar.istio.io/interceptionMode", "NONE"));
    await agent.admission.check(request({ netns: "/var/run/netns/cni-2" }), signal);
    expect(parts.finder.openHandles.size).toBe(0);
  });
});
