// SPDX-License-Identifier: Apache-2.0
// Dashboard and alert rules in a real Prometheus that scrapes a node on which all that they show happens.
import { execFile } from "node:child_process";
import { renameSync } from "node:fs";
import { resolve } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { expired } from "../../src/sandbox/apiserver/failure.ts";
import { ECHO_PORT } from "../../src/sandbox/app/protocol.ts";
import type { RunningPod } from "../../src/sandbox/kubelet.ts";
import { ipOf } from "../../src/sandbox/pod-records.ts";
import type { Sandbox } from "../../src/sandbox/sandbox.ts";
import { until } from "../../src/sandbox/until.ts";
import { ALERTS, asGrafana, PANELS, type Query, RULES } from "../support/monitoring.ts";
import { type Alert, Prometheus } from "../support/prometheus.ts";
import { appOf, httpUrl, LABEL, REDIRECTION, withSandbox, workload } from "../support/sandbox.ts";

/** Rates are over so many seconds: several scrapes, also on a machine that is late with some. */
const RATE_SECONDS = 15;
/** It takes half a minute of an agent that hangs and answers; alerts.test.yaml has it. */
const NOT_PROVOKED = ["AmbientCniWorkWaits"];
/** 0 is what a node should have there. */
const MAY_BE_ZERO = ["Work that waits C"];
/** More than TrafficRefused's tenth of a connection a second makes in five minutes. */
const REFUSED = 60;

const REROUTE = "istio.io/reroute-virtual-interfaces";
const EXCLUDE_PORTS = "traffic.sidecar.istio.io/excludeOutboundPorts";
const ENGINE = "ambient-cni.io/engine";
/** Lets a pod's packets pass unless netfilter has led them elsewhere: only netfilter's engines fail in it. */
const OBSTACLE =
  "add table inet foreign; add chain inet foreign out { type filter hook output priority 0; }; add rule inet foreign out ct status dnat drop";

const inNetns = ({ node }: Sandbox, pod: RunningPod, ...argv: string[]) =>
  node.run(["nsenter", `--net=${pod.attachment.netns}`, "--", ...argv], { timeoutMs: 5000 });

class Watched {
  readonly raised = new Map<string, Alert>();
  private readonly began = Date.now() / 1000;

  constructor(
    readonly sandbox: Sandbox,
    readonly prometheus: Prometheus,
  ) {}

  /** Waits until the alert's expression is true for Prometheus, with `provoke` done over and over again. */
  async alert(name: string, provoke: () => Promise<unknown> = async () => undefined): Promise<Alert> {
    await until(`${name} is raised`, async () => {
      await provoke();
      for (const alert of await this.prometheus.alerts()) this.raised.set(alert.name, alert);
      return this.raised.has(name);
    });
    return this.raised.get(name) as Alert;
  }

  /** Pods of which two are captured, by two engines, one by another than it should be, and one not at all. */
  async startPods(): Promise<{
    readonly server: RunningPod;
    readonly client: RunningPod;
    readonly outside: RunningPod;
  }> {
    const { sandbox } = this;
    const { kubelet } = sandbox;
    const shop = (name: string, annotations: Record<string, string> = {}) =>
      kubelet.run({ namespace: "shop", name, annotations });
    const server = await shop("server");
    const client = await shop("client", { [ENGINE]: "nftables" });
    await inNetns(sandbox, await shop("odd", { [ENGINE]: "nftables" }), "nft", OBSTACLE);
    await shop("wrong", { [REROUTE]: "eth0;" });
    const outside = await kubelet.run({ namespace: "legacy", name: "outside" });
    await kubelet.run({ namespace: "legacy", name: "proxied", sidecar: true, program: "sleep" });
    await appOf(client).open("old", ipOf(server, 4), ECHO_PORT);
    sandbox.label("shop", LABEL, "ambient");
    await until("three are enrolled", () =>
      ["server", "client", "odd"].every((name) => sandbox.annotation("shop", name, REDIRECTION) === "enabled"),
    );
    return { server, client, outside };
  }

  /** Rules that are flushed until it is told; and the plugin's binary. */
  async drift(pod: RunningPod): Promise<Alert> {
    const { sandbox } = this;
    const repaired = async (what: string) =>
      Number(
        new RegExp(`^ambient_cni_drift_repairs_total\\{what="${what}"\\} (\\d+)$`, "m").exec(
          await sandbox.metrics(),
        )?.[1],
      );
    for (let done = 0; done < 4; done++) {
      await inNetns(sandbox, pod, "nft", "flush", "ruleset");
      await until("it is repaired", async () => (await repaired("capture")) > done);
    }
    await sandbox.node.run(["rm", sandbox.node.path("opt/cni/bin/istio-cni")], { timeoutMs: 5000 });
    await until("the plugin is there again", async () => (await repaired("plugin")) === 1);
    return this.alert("AmbientCniDrift");
  }

  /** A pod whose ADD is refused, tried again as kubelet does. */
  async refusals(): Promise<void> {
    const { kubelet } = this.sandbox;
    const pod = { namespace: "legacy", name: "refused", sidecar: true, annotations: { [EXCLUDE_PORTS]: "http" } };
    kubelet.records.create(pod);
    await this.alert("AmbientCniPodsRefused", () => expect(kubelet.start(pod)).rejects.toThrow(EXCLUDE_PORTS));
  }

  async ztunnelGoes(client: RunningPod, server: RunningPod): Promise<void> {
    const { sandbox } = this;
    sandbox.ztunnels[0]?.child.killProgram();
    await this.alert("AmbientCniNoZtunnel");
    const lost = PANELS.find(({ name }) => name.startsWith("Nodes without a ztunnel"));
    if (lost === undefined) throw new Error("no panel shows nodes without a ztunnel");
    for (let each = 0; each < REFUSED; each++) {
      await expect(appOf(client).fetch(httpUrl(server))).rejects.toThrow();
    }
    await this.alert("AmbientCniTrafficRefused");
    sandbox.startZtunnel();
    await sandbox.ztunnelsConnected(1);
    // The panel shows the last number that there is: over means 0, not none.
    await until("the dashboard shows that it is there again", async () => (await this.numbers(lost)).at(-1) === 0);
  }

  async ztunnelHangs(): Promise<void> {
    const child = this.sandbox.ztunnels.at(-1)?.child;
    child?.signal("SIGSTOP");
    try {
      await this.alert("AmbientCniZtunnelSilent");
    } finally {
      child?.signal("SIGCONT");
    }
  }

  /** What a panel's query has given since the beginning. */
  async numbers({ expr }: Query): Promise<readonly number[]> {
    const series = await this.prometheus.range(asGrafana(expr, RATE_SECONDS), this.began, Date.now() / 1000, 1);
    return series.flatMap(({ values }) => values.map(([, value]) => value));
  }
}

test("every alert's expression comes true, and every panel has data, on a node where it happens", async () => {
  // Its agent is in the node's network, where Prometheus reaches it without more.
  const options = { chart: "1.24", agentEnv: { AMBIENT_CNI_POD_ENGINE: "true" } };
  await withSandbox(options, async (sandbox) => {
    const prometheus = await Prometheus.start(sandbox.node, { node1: "127.0.0.1:15014" }, resolve(RULES));
    const watched = new Watched(sandbox, prometheus);
    await watched.alert("AmbientCniNoAgent");
    renameSync(sandbox.confPath, `${sandbox.confPath}.away`);
    await sandbox.startAgent(false);
    await watched.alert("AmbientCniPluginNotInstalled");
    renameSync(`${sandbox.confPath}.away`, sandbox.confPath);
    await until("the plugin is installed", async () => /^istio_cni_install_ready 1$/m.test(await sandbox.metrics()));

    const names = ["server", "client", "odd"];
    sandbox.describeMesh(
      names.map((name, index) => workload("shop", name, index)),
      [],
    );
    for (const name of ["shop", "legacy"]) sandbox.api.put({ kind: "Namespace", metadata: { name } });
    sandbox.startZtunnel();
    await sandbox.ztunnelsConnected(1);
    const { server, client, outside } = await watched.startPods();
    for (const name of ["PodsOutOfPlace", "ConnectionsInTheClear", "EnrolmentFails", "EngineFallback"]) {
      await watched.alert(`AmbientCni${name}`);
    }
    expect(watched.raised.get("AmbientCniEngineFallback")).toMatchObject({
      state: "firing",
      labels: { from: "nftables", to: "ebpf" },
    });
    // Rates of a histogram need a second one.
    for (const [name, engine] of [
      ["late", "ebpf"],
      ["later", "nftables"],
    ] as const) {
      await sandbox.kubelet.run({ namespace: "shop", name, program: "sleep", annotations: { [ENGINE]: engine } });
    }
    await appOf(client).fetch(httpUrl(server));
    const drift = await watched.drift(client);
    expect(drift).toMatchObject({
      state: "firing",
      labels: { instance: "node1", job: "ambient-cni", what: "capture", severity: "warning" },
      summary: "Another program keeps changing what is ours on node1 (capture)",
    });
    await watched.refusals();
    await watched.ztunnelGoes(outside, server);
    await watched.ztunnelHangs();
    await watched.alert("AmbientCniApiBlind", async () => sandbox.api.failWatches(expired("too old")));

    expect([...watched.raised.keys(), ...NOT_PROVOKED].sort()).toEqual(ALERTS.map(({ name }) => name).sort());
    expect(await prometheus.ruleErrors()).toEqual([]);
    // As the dashboard's variables ask.
    expect(await prometheus.labelValues("job", "ambient_cni_build_info")).toEqual(["ambient-cni"]);
    expect(await prometheus.labelValues("instance", 'ambient_cni_build_info{job=~".*"}')).toEqual(["node1"]);
    for (const panel of PANELS) {
      await until(`${panel.name} has data`, async () =>
        (await watched.numbers(panel)).some(
          (value) => Number.isFinite(value) && (value > 0 || MAY_BE_ZERO.includes(panel.name)),
        ),
      );
    }
    await expect(prometheus.range("sum by (", 0, 1, 1)).rejects.toThrow(/parse error/);
    await prometheus.end();
  });
});

test("promtool takes the rules, and its tests of them pass", async () => {
  const promtool = (...args: string[]) => promisify(execFile)("promtool", args, { timeout: 60_000 });
  expect((await promtool("check", "rules", RULES)).stdout).toContain(`SUCCESS: ${ALERTS.length} rules found`);
  expect((await promtool("test", "rules", "install/monitoring/alerts.test.yaml")).stdout).toContain("SUCCESS");
});
