// SPDX-License-Identifier: Apache-2.0
// What others take away is put right and said, and metrics move with real traffic. The agent may go, and the
// command line sees the same in the kernel.
import { expect, test } from "vitest";
import type { StatusReport } from "../../src/core/report/status.ts";
import type { Sandbox } from "../../src/sandbox/sandbox.ts";
import { until } from "../../src/sandbox/until.ts";
import { inPod, onNode } from "../support/cli.ts";
import { appOf, httpUrl, LABEL, REDIRECTION, withSandbox, workload } from "../support/sandbox.ts";

const CALLS = 5;

/** Values of a metric, by the text of its labels. */
async function series(sandbox: Sandbox, name: string): Promise<Record<string, number>> {
  const lines = (await sandbox.metrics()).matchAll(new RegExp(`^${name}(?:\\{(.*)\\})? (\\S+)$`, "gm"));
  return Object.fromEntries([...lines].map(([, labels = "", value]) => [labels, Number(value)]));
}

const repaired = async (sandbox: Sandbox, what: string) =>
  (await series(sandbox, "ambient_cni_drift_repairs_total"))[`what="${what}"`] ?? 0;

async function statusOf(sandbox: Sandbox): Promise<StatusReport> {
  return JSON.parse((await onNode(sandbox, "status", "-o", "json")).stdout) as StatusReport;
}

test("traffic moves the verdicts, drift is repaired and told, pods that go blame nobody", async () => {
  await withSandbox({}, async (sandbox) => {
    sandbox.describeMesh(
      ["client", "server"].map((name, index) => workload("shop", name, index)),
      [],
    );
    for (const name of ["shop", "other"]) sandbox.api.put({ kind: "Namespace", metadata: { name } });
    sandbox.label("shop", LABEL, "ambient");
    await sandbox.startAgent();
    sandbox.startZtunnel();
    await sandbox.ztunnelsConnected(1);
    const client = await sandbox.kubelet.run({ namespace: "shop", name: "client" });
    const server = await sandbox.kubelet.run({ namespace: "shop", name: "server" });
    await until("both are enrolled", () =>
      ["client", "server"].every((name) => sandbox.annotation("shop", name, REDIRECTION) === "enabled"),
    );
    const call = () => appOf(client).fetch(httpUrl(server));

    const verdicts = () => series(sandbox, "ambient_cni_verdicts_total");
    const key = (verdict: string) => `engine="ebpf",verdict="${verdict}"`;
    const before = await verdicts();
    for (let each = 0; each < CALLS; each++) await call();
    await until("the calls are counted", async () => {
      const now = await verdicts();
      return (now[key("outbound_captured")] ?? 0) >= (before[key("outbound_captured")] ?? 0) + CALLS;
    });
    expect((await verdicts())[key("inbound_hbone")]).toBeGreaterThan(before[key("inbound_hbone")] ?? 0);
    expect(await series(sandbox, "ambient_cni_captured_pods")).toEqual({ 'engine="ebpf"': 2 });
    expect(await series(sandbox, "ambient_cni_plugin_requests_total")).toMatchObject({
      'verb="add",verdict="ambient",result="ok"': 2,
    });
    expect(await series(sandbox, "ambient_cni_self_test_success")).toEqual({
      'engine="ebpf"': 1,
      'engine="nftables"': 1,
      'engine="iptables"': 1,
    });
    expect(Object.values(await series(sandbox, "ambient_cni_astray_pods"))).toEqual([]);
    expect((await statusOf(sandbox)).drift).toEqual({ repaired: 0, kinds: {}, broken: {}, last: null });

    // In a pod, at all pods' cgroup, where probes are announced, on the node's disk.
    const unguard = ["nsenter", `--net=${client.attachment.netns}`, "tc", "filter", "del", "dev", "eth0", "egress"];
    await sandbox.node.run(unguard, { timeoutMs: 5000 });
    await until("the filter is back", async () => (await repaired(sandbox, "capture")) === 1);
    const told = await onNode(sandbox, "status");
    expect(told.stdout).toMatch(
      /\n {2}drift +OK +1 repaired since the start \(capture 1\), last \ds ago: shop\/client: the TC egress filter of eth0 is missing\n/,
    );
    expect(told.status).toBe(0);
    const pins = "/sys/fs/bpf/ambient-cni";
    await sandbox.node.run(
      [
        "sh",
        "-c",
        `rm ${pins}/v1/outbound/*/ambient_connect4 ${pins}/v1/probes/*; rm -f "$1"`,
        "sh",
        sandbox.node.path("opt/cni/bin/istio-cni"),
      ],
      { timeoutMs: 5000 },
    );
    // What all pods are captured by is the node's, whoever sees it first: the node's look, or one at a pod.
    for (const what of ["hooks", "probe_hooks", "plugin"]) {
      await until(`${what} are repaired`, async () => (await repaired(sandbox, what)) === 1, 15_000);
    }
    await call();
    const inspected = await onNode(sandbox, "inspect", "client");
    expect(inspected.stdout).toMatch(/ repaired .*the TC egress filter of eth0 is missing/);
    expect((await statusOf(sandbox)).drift).toMatchObject({
      repaired: 4,
      kinds: { capture: 1, hooks: 1, probe_hooks: 1, plugin: 1 },
    });

    // A ztunnel that is stopped keeps its connection to the agent, and its listeners: what is sent there hangs.
    const stuck = async () => Object.values(await series(sandbox, "ambient_cni_ztunnel_stuck"));
    const ztunnel = sandbox.ztunnels[0]?.child;
    ztunnel?.signal("SIGSTOP");
    try {
      const hanging = appOf(client).fetch(httpUrl(server), "", 60_000);
      await until("both signs of it are seen", async () => (await stuck()).every((count) => count > 0), 30_000);
      const silent = await onNode(sandbox, "status");
      expect(silent.stdout).toMatch(
        /\n {2}ztunnel +ERROR +1 connected, 2 acked, 0 pending; it does not answer: its process \d+ is stopped, for \d+s \(/,
      );
      const checked = await onNode(sandbox, "check", "--category", "ztunnel");
      expect(checked.status).toBe(1);
      expect(checked.stdout).toMatch(
        / AMB-303\n.* is stopped, for \d+ s; at port 15001 in shop\/client 1 connection waits, and none is seen accepted/,
      );
      ztunnel?.signal("SIGCONT");
      expect((await hanging).server).toBe("server");
    } finally {
      ztunnel?.signal("SIGCONT");
    }
    await until("it answers again", async () => (await stuck()).every((count) => count === 0), 30_000);
    expect((await statusOf(sandbox)).ztunnelStuck).toEqual([]);

    // Labelled and not captured, with the reason; and well again.
    await sandbox.kubelet.run({
      ...{ namespace: "other", name: "late", program: "sleep" },
      annotations: { "istio.io/reroute-virtual-interfaces": "eth0; reboot" },
    });
    sandbox.label("other", LABEL, "ambient");
    const astray = () => series(sandbox, "ambient_cni_astray_pods");
    const lost = 'kind="not_captured",reason="ANNOTATION_INVALID"';
    await until("the pod that is not captured shows", async () => (await astray())[lost] === 1);
    expect((await onNode(sandbox, "pods", "--failing")).stdout).toMatch(/\nother +late .* ANNOTATION_INVALID/);
    // However often it is tried, kubectl shows it once.
    const events = () => sandbox.api.list("Event", "other") as unknown as { reason: string; count: number }[];
    await until("the pod's owner is told", () => events().length > 0);
    expect(events()).toMatchObject([{ reason: "AmbientEnrollmentFailed", count: 1 }]);
    // An agent that hangs, in whose pod the cluster can be asked all the same: both ways show.
    sandbox.agent?.signal("SIGSTOP");
    sandbox.label("shop", LABEL, null);
    const alone = await inPod(sandbox, "status", "--timeout", "300ms");
    sandbox.label("shop", LABEL, "ambient");
    sandbox.agent?.signal("SIGCONT");
    expect(alone.stdout).toMatch(
      /\n {2}pods +WARN +0 captured, 1 not captured and should be, 2 captured unwanted, 1 not\n/,
    );
    expect(alone.stdout).toMatch(/\n! other\/late +NOT_CAPTURED: belongs to the mesh \(/);
    expect(alone.stdout).toMatch(/\n! shop\/client +NOT_WANTED: captured, and does not belong to the mesh: /);
    sandbox.label("other", LABEL, null);
    await until("it is no pod of the mesh any more", async () => (await astray())[lost] === 0);

    const captured = async () => (await series(sandbox, "ambient_cni_captured_pods"))['engine="ebpf"'];
    await until("both are captured again", async () => (await captured()) === 2);
    await sandbox.kubelet.remove(server);
    await until("the server is forgotten", () => /\tforgotten\b.*shop\/server/.test(sandbox.agentLog()));
    expect(await captured()).toBe(1);
    const log = sandbox.agentLog();
    expect(log.split("\n").filter((line) => line.includes("shop/server") && /warn|gVisor/.test(line))).toEqual([]);
  });
});
