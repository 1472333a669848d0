// SPDX-License-Identifier: Apache-2.0
// A report of a node is whole, holds no credential of it, and is read like the node.
import { mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { expect, test } from "vitest";
import { unpackReport } from "../../src/cli/bugreport/unpack.ts";
import type { PodsReport } from "../../src/core/report/pods.ts";
import { until } from "../../src/sandbox/until.ts";
import { inPod, onNode } from "../support/cli.ts";
import { LABEL, withSandbox, workload } from "../support/sandbox.ts";

interface Made {
  readonly schemaVersion: number;
  readonly items: readonly string[];
  readonly failed: readonly string[];
  readonly seconds: number;
}

test("a report is made on the node, in the pod and without an agent", async () => {
  // Known by its name in the agent's environment, and by nothing where it stands else.
  const agentEnv = { REGISTRY_PASSWORD: "opaque-in-the-environment" };
  await withSandbox({ agentEnv }, async (sandbox) => {
    sandbox.describeMesh([workload("shop", "web", 0)], []);
    sandbox.api.put({ kind: "Namespace", metadata: { name: "shop" } });
    sandbox.label("shop", LABEL, "ambient");
    await sandbox.startAgent();
    sandbox.startZtunnel();
    await sandbox.ztunnelsConnected(1);
    const token = readFileSync(sandbox.node.path("secrets/token"), "utf8");
    const { users } = JSON.parse(readFileSync(sandbox.kubeconfigPath, "utf8")) as {
      readonly users: readonly [{ readonly user: { readonly token: string } }];
    };
    // Where people and other programs leave them.
    const labels = { "deploy-token": users[0].user.token, note: agentEnv.REGISTRY_PASSWORD };
    const { uid } = await sandbox.kubelet.run({ namespace: "shop", name: "web", labels, program: "sleep" });
    // Into the agent's log and decisions, by way of what it says about a wrong value.
    const annotations = { "istio.io/reroute-virtual-interfaces": "eth0; password=hunter2-in-the-log" };
    sandbox.api.put({ kind: "Namespace", metadata: { name: "other" } });
    await sandbox.kubelet.run({ namespace: "other", name: "late", annotations, program: "sleep" });
    sandbox.label("other", LABEL, "ambient");
    await until("the wrong value is in the log", () => sandbox.agentLog().includes("hunter2-in-the-log"));
    const kubelets = `${sandbox.node.logDir("istio-system", "istio-cni-node-x7k2p", uid)}/install-cni`;
    mkdirSync(kubelets, { recursive: true });
    writeFileSync(`${kubelets}/0.log`, `2026-11-28T10:00:00Z stderr F sent with Bearer ${token}\n`);
    const other = {
      cniVersion: "1.0.0",
      name: "other",
      type: "bridge",
      k8s_auth_token: token,
      note: `Bearer ${token}`,
    };
    writeFileSync(sandbox.node.path("etc/cni/net.d/20-other.conf"), JSON.stringify(other));

    const file = sandbox.node.path("report.tgz");
    const told = await onNode(sandbox, "bugreport", "-o", file);
    expect(told, told.stderr).toMatchObject({ status: 0, stderr: "" });
    expect(told.stdout).toMatch(/^collected \d+ items in \d\.\d s \(.*\); \d+ failed; without credentials\n/);
    expect(told.milliseconds).toBeLessThan(10_000);
    expect(statSync(file).mode & 0o777).toBe(0o600);
    const bytes = gunzipSync(readFileSync(file)).toString("latin1");
    for (const name of ["deploy-token", "k8s_auth_token"]) expect(bytes).toContain(name);
    for (const secret of [token, users[0].user.token, "hunter2"]) expect(bytes.includes(secret), secret).toBe(false);
    const files = unpackReport(readFileSync(file));
    const text = (path: string) => files.get(path)?.toString("utf8") ?? "";
    expect(text(`kernel/${uid}/nft.txt`)).toMatch(/^\$ nft list ruleset\n/);
    expect(text(`kernel/${uid}/rules.txt`)).toMatch(/^0:\tfrom all lookup local/m);
    expect(text(`kernel/${uid}/routes.txt`)).toMatch(/^local 127\.0\.0\.1/m);
    expect(text(`kernel/${uid}/addresses.txt`)).toMatch(/inet 10\.66\.0\.2\/\d+ /);
    expect(text(`kernel/${uid}/iptables.txt`)).toMatch(/^\$ iptables-nft-save\n[\s\S]*\$ ip6tables-legacy-save\n/);
    const netns = JSON.parse(text(`kernel/${uid}/netns.json`)) as Readonly<Record<string, unknown>>;
    expect(netns).toMatchObject({
      sysctls: { "net/ipv4/tcp_fwmark_accept": "1", "net/netfilter/nf_conntrack_count": "0" },
      addresses: expect.arrayContaining([expect.objectContaining({ address: "10.66.0.2" })]),
      sockets: { shown: expect.arrayContaining([expect.objectContaining({ srcPort: 15008, state: 10 })]) },
      bpf: { skLookup: true },
    });
    expect(JSON.parse(text("node/bpf.json"))).toMatchObject({
      pods: expect.arrayContaining([expect.objectContaining({ ip4: "10.66.0.2", cookie: netns.cookie })]),
    });
    expect(text("node/facts.json")).toContain('"sysctls"');
    expect(text("metrics.txt")).toMatch(/^ambient_cni_build_info/m);
    expect(text("text/log.txt")).toContain("ambient-cni starting");
    expect(text("node/logs/istio-cni-node-x7k2p/install-cni-0.log")).toMatch(/sent with Bearer \[redacted\]$/m);
    expect(text(`kernel/${uid}/tc.txt`)).toMatch(/^qdisc clsact/m);
    expect(text("node/cni/10-sandbox.conflist")).toContain('"istio-cni"');
    expect(text("text/status.txt")).toContain("source: agent\n");

    // Where the agent is away, or on another machine.
    for (const argv of [
      ["pods", "--enrolled"],
      ["inspect", "web", "-o", "yaml"],
      ["pods", "web", "-o", "json"],
      ["engines"],
      ["log"],
      ["log", "--last", "5"],
      ["check", "--category", "kernel,ztunnel"],
      ["config", "--changed"],
      ["version"],
    ]) {
      const read = await onNode(sandbox, ...argv, "--from", file, "--socket", "/nonexistent");
      expect(read, argv.join(" ")).toMatchObject({ status: 0, stderr: "" });
    }

    const within = await inPod(sandbox, "bugreport", "-o", "/var/run/istio-cni/report.tgz", "--pod", "web");
    expect(within, within.stderr).toMatchObject({ status: 0, stderr: "" });
    const inner = unpackReport(readFileSync(sandbox.node.path("run/istio-cni/report.tgz")));
    const innermost = gunzipSync(readFileSync(sandbox.node.path("run/istio-cni/report.tgz"))).toString("latin1");
    for (const secret of [token, "hunter2", agentEnv.REGISTRY_PASSWORD]) expect(innermost.includes(secret)).toBe(false);
    expect(inner.get("metrics.txt")?.toString()).toMatch(/^istio_cni_/m);
    expect([...inner.keys()].filter((path) => path.startsWith("documents/inspect/"))).toHaveLength(1);

    await sandbox.endAgent("SIGKILL");
    const alone = await onNode(sandbox, "-o", "json", "bugreport", "-o", file);
    expect(alone, alone.stderr).toMatchObject({ status: 0, stderr: "" });
    const { schemaVersion, items, failed, seconds } = JSON.parse(alone.stdout) as Made;
    expect(schemaVersion).toBe(1);
    expect(seconds).toBeLessThan(10);
    expect(items).toContain(`kernel/${uid}/nft.txt`);
    expect(failed.filter((line) => line.startsWith("documents/"))).toEqual([
      expect.stringMatching(/^documents\/log\.json: only the agent knows this/),
      expect.stringMatching(/^documents\/decisions\.json: only the agent knows this/),
      expect.stringMatching(/^documents\/lines\.json: only the agent knows this/),
    ]);
    const pods = await onNode(sandbox, "pods", "web", "-o", "json", "--from", file);
    const { source, pods: listed } = JSON.parse(pods.stdout) as PodsReport;
    expect(source).toEqual({
      from: "report",
      note: expect.stringMatching(/^report\.tgz: kernel, agent unreachable: /),
    });
    expect(listed).toMatchObject([{ uid, namespace: "shop", name: "web", mesh: "captured" }]);
    expect(await onNode(sandbox, "status", "--from", file)).toMatchObject({ status: 3, stderr: "" });
  });
});
