// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from "vitest";
import { namespaceFromKube, podFromKube } from "../../../src/kube/from-kube.ts";

const METADATA = { name: "web", namespace: "shop", uid: "u1", resourceVersion: "5" };

function project(object: unknown) {
  const problems: string[] = [];
  return { pod: podFromKube(object, (problem) => problems.push(problem)), problems };
}

test("a full pod keeps what decides something and nothing else", () => {
  const { pod, problems } = project({
    metadata: {
      ...METADATA,
      creationTimestamp: "2026-11-21T10:00:00Z",
      deletionTimestamp: "2026-11-21T11:00:00Z",
      labels: { app: "web", "istio.io/dataplane-mode": "ambient" },
      annotations: {
        "ambient.istio.io/redirection": "enabled",
        "ambient.istio.io/dns-capture": "false",
        "ambient.istio.io/bypass-inbound-capture": "true",
        "istio.io/reroute-virtual-interfaces": "net1",
        "sidecar.istio.io/status": '{"containers":["istio-proxy"]}',
        "ambient-cni.io/exclude-outbound-cidrs": "10.0.0.0/8",
        "ambient-cni.io/engine": "nftables",
        "kubernetes.io/config.hash": "0123",
        "kubectl.kubernetes.io/last-applied-configuration": "{...}",
      },
      managedFields: [{ manager: "kubelet" }],
    },
    spec: {
      nodeName: "node1",
      serviceAccountName: "shop",
      runtimeClassName: "gvisor",
      dnsPolicy: "None",
      dnsConfig: { nameservers: ["9.9.9.9", 7] },
      hostNetwork: true,
      containers: [{ name: "app" }, { name: "istio-proxy" }],
      initContainers: [{ name: "istio-init" }],
    },
    status: {
      phase: "Running",
      podIP: "10.1.0.4",
      podIPs: [{ ip: "10.1.0.4" }, { ip: "FD00:0::4" }],
      containerStatuses: [{ containerID: "containerd://c1" }, { containerID: "cri-o://c2" }, {}],
      initContainerStatuses: [{ containerID: "containerd://i1" }],
      ephemeralContainerStatuses: [{ containerID: "e1" }],
    },
  });
  expect(problems).toEqual([]);
  expect(pod).toEqual({
    ...METADATA,
    nodeName: "node1",
    serviceAccount: "shop",
    labels: { app: "web", "istio.io/dataplane-mode": "ambient" },
    annotations: {
      "ambient.istio.io/redirection": "enabled",
      "ambient.istio.io/dns-capture": "false",
      "ambient.istio.io/bypass-inbound-capture": "true",
      "istio.io/reroute-virtual-interfaces": "net1",
      "sidecar.istio.io/status": "",
      "ambient-cni.io/exclude-outbound-cidrs": "10.0.0.0/8",
      "ambient-cni.io/engine": "nftables",
      "kubernetes.io/config.hash": "0123",
    },
    phase: "Running",
    ips: ["10.1.0.4", "fd00::4"],
    hostNetwork: true,
    runtimeClass: "gvisor",
    containers: ["app", "istio-proxy"],
    initContainers: ["istio-init"],
    proxy: { uid: undefined, gid: undefined, role: undefined, env: {} },
    initFailures: undefined,
    containerIds: ["c1", "c2", "i1", "e1"],
    deleting: true,
    createdAt: Date.UTC(2026, 10, 21, 10),
    dnsPolicy: "None",
    dnsNameservers: ["9.9.9.9"],
  });
  // Plain data: whoever reads the cache never meets a Date.
  expect(JSON.parse(JSON.stringify(pod))).toEqual(pod);
});

test("a pod that was only just made", () => {
  const { pod, problems } = project({ metadata: METADATA });
  expect(problems).toEqual([]);
  expect(pod).toMatchObject({ phase: "Pending", ips: [], serviceAccount: "default", nodeName: "", containerIds: [] });
});

test.each([
  [{ podIPs: [{ ip: "10.1.0.4" }, { ip: "garbage" }] }, ["10.1.0.4"], 1],
  [{ podIPs: [{ ip: "1.2.3" }] }, [], 1],
  [{ podIPs: [{ ip: 7 }, {}, null, "10.1.0.9"] }, ["10.1.0.9"], 3],
  [{ podIPs: "10.1.0.4", podIP: "10.1.0.5" }, ["10.1.0.5"], 0],
  [{ podIP: "::ffff:10.1.0.6" }, ["10.1.0.6"], 0],
  [{ podIP: "" }, [], 0],
  [{ podIP: "10.1.0.4; drop" }, [], 1],
  [{ podIPs: [{ ip: "10.1.0.4" }, { ip: "10.1.0.4" }] }, ["10.1.0.4"], 0],
])("addresses %j", (status, ips, problems) => {
  const result = project({ metadata: METADATA, status });
  expect(result.pod?.ips).toEqual(ips);
  expect(result.problems).toHaveLength(problems);
  for (const problem of result.problems) expect(problem).toContain("pod shop/web: an address is ignored");
});

test.each([
  null,
  "text",
  5,
  [],
  {},
  { metadata: [] },
  { metadata: { ...METADATA, uid: 5 } },
  { metadata: { name: "x" } },
])("no identity, no pod: %j", (object) => {
  const { pod, problems } = project(object);
  expect(pod).toBeUndefined();
  expect(problems).toHaveLength(1);
});

test("fields of a wrong type count as absent", () => {
  const { pod, problems } = project({
    metadata: { ...METADATA, labels: { good: "x", bad: 5, worse: null }, annotations: ["a"] },
    spec: { containers: "many", initContainers: [null, { name: 3 }], hostNetwork: "true", nodeName: {} },
    status: { phase: "Sleeping", containerStatuses: [{ containerID: 9 }, "x"] },
  });
  expect(problems).toEqual([]);
  expect(pod).toMatchObject({
    labels: { good: "x" },
    annotations: {},
    containers: [],
    initContainers: [],
    hostNetwork: false,
    nodeName: "",
    phase: "Unknown",
    containerIds: [],
    createdAt: undefined,
    dnsPolicy: "ClusterFirst",
    dnsNameservers: [],
  });
});

test("a label named like a part of every object is just a label", () => {
  const object = JSON.parse(
    '{"metadata":{"name":"web","namespace":"shop","uid":"u","resourceVersion":"1","labels":{"constructor":"x","__proto__":"y"}}}',
  );
  const { pod } = project(object);
  expect(Object.keys(pod?.labels ?? {})).toEqual(["constructor", "__proto__"]);
});

test("a namespace keeps its labels", () => {
  const object = { metadata: { name: "shop", uid: "n1", resourceVersion: "3", labels: { a: "b" } }, status: {} };
  expect(namespaceFromKube(object, () => undefined)).toEqual({
    name: "shop",
    uid: "n1",
    resourceVersion: "3",
    labels: { a: "b" },
  });
  const problems: string[] = [];
  expect(namespaceFromKube({ metadata: {} }, (problem) => problems.push(problem))).toBeUndefined();
  expect(problems).toHaveLength(1);
});

describe("of an injected pod", () => {
  const injected = (container: object, annotations: object = {}, list = "containers") =>
    project({
      metadata: { ...METADATA, annotations: { "sidecar.istio.io/status": "{}", ...annotations } },
      spec: { [list]: [{ name: "app" }, { name: "istio-proxy", ...container }] },
    }).pod;

  test("what the redirection into its sidecar depends on is kept too", () => {
    const annotations = {
      "sidecar.istio.io/inject": "true",
      "sidecar.istio.io/interceptionMode": "TPROXY",
      "traffic.sidecar.istio.io/includeOutboundIPRanges": "*",
      "traffic.sidecar.istio.io/excludeOutboundIPRanges": "10.0.0.0/8",
      "traffic.sidecar.istio.io/includeInboundPorts": "80",
      "traffic.sidecar.istio.io/excludeInboundPorts": "81",
      "traffic.sidecar.istio.io/includeOutboundPorts": "82",
      "traffic.sidecar.istio.io/excludeOutboundPorts": "83",
      "traffic.sidecar.istio.io/excludeInterfaces": "net1",
      "traffic.sidecar.istio.io/kubevirtInterfaces": "net2",
    };
    const pod = injected(
      {
        args: ["proxy", "sidecar", "--domain", "x"],
        securityContext: { runAsUser: 1000, runAsGroup: 0 },
        env: [
          { name: "ISTIO_META_DNS_CAPTURE", value: "false" },
          { name: "ISTIO_META_DNS_CAPTURE", value: "true" },
          { name: "PROXY_CONFIG", value: "{}" },
          { name: "INVALID_DROP", valueFrom: {} },
          7,
        ],
      },
      { ...annotations, "traffic.sidecar.istio.io/other": "x" },
    );
    expect(pod?.annotations).toEqual({ "sidecar.istio.io/status": "", ...annotations });
    expect(pod?.proxy).toEqual({
      uid: 1000,
      gid: 0,
      role: "sidecar",
      env: { ISTIO_META_DNS_CAPTURE: "true", INVALID_DROP: "" },
    });
  });

  test("a native sidecar is found, odd shapes count as absent, long texts are cut", () => {
    const odd = { args: ["run", "sidecar"], securityContext: { runAsUser: -1, runAsGroup: "1" }, env: "x" };
    const none = { uid: undefined, gid: undefined, role: undefined, env: {} };
    expect(injected(odd, {}, "initContainers")?.proxy).toEqual(none);
    expect(injected({ args: ["proxy"] })?.proxy).toEqual(none);
    expect(injected({ args: ["proxy", "x".repeat(5000)] })?.proxy?.role).toHaveLength(128);
  });
});

test("of any other pod nothing of that is kept", () => {
  const { pod } = project({
    metadata: { ...METADATA, annotations: { "sidecar.istio.io/interceptionMode": "TPROXY" } },
    spec: { containers: [{ name: "istio-proxy", args: ["proxy", "router"] }] },
  });
  expect(pod).toMatchObject({ annotations: {}, proxy: undefined });
});

describe("init containers that have failed", () => {
  const failures = (...initContainerStatuses: unknown[]) =>
    project({
      metadata: METADATA,
      spec: { restartPolicy: "OnFailure", schedulerName: "s" },
      status: { initContainerStatuses, nominatedNodeName: "n" },
    }).pod?.initFailures;
  const failed = { name: "v", lastState: { terminated: { exitCode: 126, message: " no rules\n" } } };

  test("are kept with how they last ended, and with what repair may select by", () => {
    expect(failures({ name: "ok" }, { ...failed, state: { waiting: { reason: "CrashLoopBackOff" } } })).toEqual({
      containers: [{ name: "v", exitCode: 126, message: "no rules" }],
      restartPolicy: "OnFailure",
      schedulerName: "s",
      nominatedNodeName: "n",
    });
  });
  test("not once they have ended well, nor before they have ended at all, nor of an odd shape", () => {
    expect(failures({ ...failed, state: { terminated: { exitCode: 0 } } })).toBeUndefined();
    expect(failures({ ...failed, state: { terminated: { exitCode: 1, reason: "Completed" } } })).toBeUndefined();
    expect(failures({ name: "v", state: { terminated: { exitCode: 126 } } })).toBeUndefined();
    expect(failures({ name: "v", lastState: { terminated: { exitCode: "126" } } }, 7, null)).toBeUndefined();
  });
});

test("of annotations that somebody marks the presence is kept", () => {
  const object = { metadata: { ...METADATA, annotations: { mark: "long", other: "x" } } };
  expect(podFromKube(object, () => undefined, ["mark", "absent"])?.annotations).toEqual({ mark: "" });
});
