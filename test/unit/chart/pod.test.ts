// SPDX-License-Identifier: Apache-2.0
// The agent finds in its pod what it looks for, and may do what it has to, and no more.
import { dirname } from "node:path";
import { describe, expect, test } from "vitest";
import { CASES } from "../../../scripts/render-chart.ts";
import { parseConfig } from "../../../src/core/config/parse.ts";
import { AGENT_CAPABILITIES, AGENT_DAEMONSET } from "../../../src/core/constants.ts";
import { RenderedChart } from "../../support/manifests.ts";

/** Where the agent has to mount a bpffs on the node: test/e2e/bpffs.test.ts. */
const MAKES_BPFFS: ReadonlySet<string> = new Set(["platform-k3d", "platform-kind", "platform-minikube"]);

const charts = Object.keys(CASES)
  .filter((name) => name !== "cluster-scope")
  .map((name) => new RenderedChart(name));

describe.each(charts.map((chart) => [chart.name, chart] as const))("%s", (_name, chart) => {
  const pod = chart.only("DaemonSet").spec?.template;
  const parsed = parseConfig(chart.environment(), chart.container.args ?? []);
  const { config } = parsed;

  test("every setting is known and right", () => {
    expect(parsed.warnings).toEqual([]);
    expect(config.nodeName).toBe("node-1");
    expect(config.podNamespace).toBe("istio-system");
    expect(config.memoryLimit).toBe(128 * 2 ** 20);
    expect(config.repair.nodeName).toBe("node-1");
  });

  test("the node's network is its own or reached through the node's first process", () => {
    expect(config.switchToHostNetns).toBe(pod?.spec?.hostNetwork !== true);
  });

  test("the directories that it writes to are mounted, and writable", () => {
    const written = [config.cniBinDir, config.cniNetDir, config.runDir, dirname(config.ztunnelSocket)];
    for (const path of written) expect(chart.mount(path)).toMatchObject({ mountPath: path });
    for (const path of written) expect(chart.mount(path)?.readOnly).toBeUndefined();
  });

  test("what it reads of the node is mounted", () => {
    expect(chart.mount(config.procDir)).toMatchObject({ readOnly: true });
    expect(chart.hostPath(config.procDir)).toBe("/proc");
    // Namespaces that are mounted later must be seen too.
    expect(chart.mount(`${config.hostRoot}/var/run/netns`)).toMatchObject({ mountPropagation: "HostToContainer" });
  });

  test("runtime directory and socket are where plugin and ztunnel look for them", () => {
    expect(chart.hostPath(config.runDir)).toBe("/var/run/istio-cni");
    expect(chart.hostPath(dirname(config.ztunnelSocket))).toBe("/var/run/ztunnel");
  });

  test("every mount has a volume and every volume a mount", () => {
    const mounts = (chart.container.volumeMounts ?? []).map(({ name }) => name).sort();
    const volumes = (pod?.spec?.volumes ?? []).map(({ name }) => name).sort();
    expect(mounts).toEqual(volumes);
  });

  test("it has exactly the capabilities that it needs", () => {
    const { securityContext } = chart.container;
    expect(securityContext).toMatchObject({
      privileged: false,
      runAsUser: 0,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ["ALL"] },
    });
    const more = MAKES_BPFFS.has(chart.name) ? ["SYS_CHROOT"] : [];
    expect(securityContext?.capabilities?.add).toEqual([...AGENT_CAPABILITIES, ...more]);
  });

  test("AppArmor does not confine it", () => {
    const field = chart.container.securityContext?.appArmorProfile?.type;
    const { annotations = {} } = pod?.metadata ?? {};
    const annotation = annotations[`container.apparmor.security.beta.kubernetes.io/${chart.container.name}`];
    expect([field, annotation]).toEqual(
      chart.name === "kubernetes-1.29" ? [undefined, "unconfined"] : ["Unconfined", undefined],
    );
  });

  test("probes and scrapers find its ports", () => {
    const { readinessProbe, livenessProbe, ports } = chart.container;
    expect(readinessProbe?.httpGet).toEqual({ path: "/readyz", port: config.healthPort });
    expect(livenessProbe?.httpGet).toEqual({ path: "/healthz", port: config.healthPort });
    expect(ports).toEqual([{ name: "metrics", containerPort: config.monitoringPort, protocol: "TCP" }]);
    expect(pod?.metadata?.annotations).toMatchObject({
      "prometheus.io/scrape": "true",
      "prometheus.io/port": String(config.monitoringPort),
      "prometheus.io/path": "/metrics",
    });
  });

  test("plugin and istiod know it by its name and label, and it is in no mesh", () => {
    expect(chart.only("DaemonSet").metadata?.name).toBe(AGENT_DAEMONSET);
    expect(pod?.metadata?.labels).toMatchObject({
      "k8s-app": "istio-cni-node",
      "istio.io/dataplane-mode": "none",
      "sidecar.istio.io/inject": "false",
    });
    expect(chart.only("DaemonSet").spec?.selector.matchLabels).toEqual({ "k8s-app": "istio-cni-node" });
    expect(pod?.spec?.priorityClassName).toBe("system-node-critical");
  });

  test("no variable comes from Services beside it", () => {
    expect(pod?.spec?.enableServiceLinks).toBe(false);
  });
});

describe("defaults", () => {
  const chart = new RenderedChart("default");
  const { config } = parseConfig(chart.environment(), chart.container.args ?? []);

  test("the mesh is on, as in upstream's ambient profile", () => {
    expect(config).toMatchObject({
      ambientEnabled: true,
      dnsCapture: true,
      ipv6: true,
      chained: true,
      excludedNamespaces: ["kube-system"],
      cniConfName: "",
      istioOwnedConfig: false,
    });
    // The chart's selectors are the agent's own defaults.
    expect(config.enablementSelectors).toEqual(parseConfig({ NODE_NAME: "node-1" }, []).config.enablementSelectors);
  });

  test("128 MiB, 30 s, one node at a time, on every node", () => {
    const spec = chart.only("DaemonSet").spec;
    expect(chart.container.resources).toEqual({
      requests: { cpu: "100m", memory: "100Mi" },
      limits: { memory: "128Mi" },
    });
    expect(spec?.updateStrategy).toEqual({ type: "RollingUpdate", rollingUpdate: { maxUnavailable: 1 } });
    expect(spec?.template.spec?.terminationGracePeriodSeconds).toBe(30);
    expect(spec?.template.spec?.tolerations).toEqual(
      expect.arrayContaining([
        { effect: "NoSchedule", operator: "Exists" },
        { effect: "NoExecute", operator: "Exists" },
      ]),
    );
  });

  test("bpffs and cgroup tree are mounted where the agent looks when the node's /proc leads nowhere", () => {
    expect(chart.hostPath("/sys/fs/bpf")).toBe("/sys/fs/bpf");
    expect(chart.mount("/host/sys/fs/cgroup")).toMatchObject({ readOnly: true });
    expect(new RenderedChart("no-bpffs").mount("/sys/fs/bpf")).toBeUndefined();
  });

  test("objects are those that are needed", () => {
    expect(chart.kinds()).toEqual(["ClusterRole", "ClusterRoleBinding", "ConfigMap", "DaemonSet", "ServiceAccount"]);
    const [cluster, namespaced] = ["cluster-scope", "namespace-scope"].map((name) => new RenderedChart(name).kinds());
    expect(cluster).toEqual(["ClusterRole", "ClusterRoleBinding"]);
    expect([...(cluster ?? []), ...(namespaced ?? [])].sort()).toEqual(chart.kinds());
    expect(new RenderedChart("everything").kinds()).toEqual(
      expect.arrayContaining(["NetworkPolicy", "ResourceQuota", ...chart.kinds()]),
    );
  });
});

describe("values", () => {
  test("those below cni: count as those at the top, and beat their platform's", () => {
    const chart = new RenderedChart("below-cni");
    const { config } = parseConfig(chart.environment(), chart.container.args ?? []);
    expect(config).toMatchObject({ chained: true, dnsCapture: false, engine: "nftables", ipv6: false });
    expect(config.drainSeconds).toBe(30);
    expect(chart.hostPath("/host/etc/cni/net.d")).toBe("/etc/cni/net.d");
    expect(chart.hostPath("/host/opt/cni/bin")).toBe("/var/lib/cni/bin");
    expect(chart.container.image).toBe("registry.example/ambient-cni:0.1.0");
    expect(chart.kinds()).not.toContain("NetworkAttachmentDefinition");
  });

  test("everything that can be set arrives", () => {
    const chart = new RenderedChart("everything");
    const spec = chart.only("DaemonSet").spec;
    const { config } = parseConfig(chart.environment(), chart.container.args ?? []);
    expect(config).toMatchObject({
      cniConfName: "10-calico.conflist",
      istioOwnedConfig: true,
      istioOwnedConfigName: "01-istio.conflist",
      excludedNamespaces: ["kube-system", "monitoring"],
      nativeNftables: true,
      logAsJson: true,
      repair: { labelPods: true, repairPods: false },
    });
    expect([...config.logLevels]).toEqual([["default", "debug"]]);
    expect(chart.container).toMatchObject({
      image: "registry.example/ambient-cni:1.2.3-debug",
      imagePullPolicy: "Always",
      resources: { requests: { cpu: "100m", memory: "100Mi" }, limits: { cpu: "1", memory: "256Mi" } },
      securityContext: {
        seccompProfile: { type: "RuntimeDefault" },
        // Options without a type are of a container that must reach the node.
        seLinuxOptions: { level: "s0", type: "spc_t" },
      },
    });
    expect(spec).toMatchObject({
      updateStrategy: { type: "OnDelete" },
      template: {
        metadata: { labels: { team: "mesh" }, annotations: { "example.com/note": "yes" } },
        spec: { terminationGracePeriodSeconds: 60 },
      },
    });
    expect(JSON.stringify(spec?.template.spec?.affinity)).toContain('"key":"mesh","operator":"NotIn"');
    expect(chart.only("DaemonSet").metadata?.labels).toMatchObject({ tier: "node", "istio.io/rev": "canary" });
  });

  test("a changed setting changes the pod, so that the agents restart", () => {
    const checksum = (name: string) =>
      new RenderedChart(name).only("DaemonSet").spec?.template.metadata?.annotations?.["checksum/config"];
    expect(checksum("default")).toMatch(/^\w{64}$/);
    expect(checksum("below-cni")).not.toBe(checksum("default"));
  });
});
