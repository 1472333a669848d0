// SPDX-License-Identifier: Apache-2.0
// `ambient-cni remove` on the node, after an agent that could give nothing back itself.
import { existsSync } from "node:fs";
import { expect, test } from "vitest";
import { PROBE_SNAT_IPV4 } from "../../src/core/constants.ts";
import type { Exchange } from "../../src/sandbox/app/protocol.ts";
import { ipOf } from "../../src/sandbox/pod-records.ts";
import { httpGet } from "../../src/sandbox/probe.ts";
import type { Sandbox } from "../../src/sandbox/sandbox.ts";
import { until } from "../../src/sandbox/until.ts";
import { asNobody, inDebugContainer, onNode } from "../support/cli.ts";
import { appOf, httpUrl, LABEL, REDIRECTION, withSandbox, workload } from "../support/sandbox.ts";

async function meshOfTwo(sandbox: Sandbox) {
  sandbox.describeMesh(
    ["client", "server"].map((name, index) => workload("shop", name, index)),
    [],
  );
  sandbox.api.put({ kind: "Namespace", metadata: { name: "shop" } });
  sandbox.label("shop", LABEL, "ambient");
  const { conf } = sandbox.installed();
  await sandbox.startAgent();
  sandbox.startZtunnel();
  await sandbox.ztunnelsConnected(1);
  const client = await sandbox.kubelet.run({ namespace: "shop", name: "client" });
  const server = await sandbox.kubelet.run({ namespace: "shop", name: "server" });
  await until("both are announced", () =>
    ["client", "server"].every((name) => sandbox.annotation("shop", name, REDIRECTION) === "enabled"),
  );
  await appOf(client).open("long", ipOf(server, 4), 9090);
  return { conf, client, server };
}

const remove = (sandbox: Sandbox, ...options: readonly string[]) => onNode(sandbox, "remove", ...options);

test.each(["ebpf", "nftables", "iptables"])(
  "%s: a killed agent's node is given back, first around its pods, then with them",
  async (engine) => {
    await withSandbox({ agentEnv: { AMBIENT_CNI_ENGINE: engine } }, async (sandbox) => {
      const { conf, client, server } = await meshOfTwo(sandbox);
      const refused = await remove(sandbox);
      expect(refused, refused.stderr).toMatchObject({ status: 1, stdout: "" });
      expect(refused.stderr).toContain("an agent is running on this node: it answers at /var/run/istio-cni/");
      // What changes nothing is told beside an agent too.
      const beside = await remove(sandbox, "--dry-run", "--uncapture");
      expect(beside.status, beside.stderr).toBe(0);
      expect(beside.stderr).toMatch(/^an agent is running on this node: .*; while it does, nothing of this is done/);
      expect(beside.stdout).toMatch(new RegExp(`^would release pod \\S+ \\(${engine}\\)$`, "m"));
      expect(sandbox.installed().conf).not.toBe(conf);
      await sandbox.endAgent("SIGKILL");
      expect(await asNobody(sandbox, "remove")).toMatchObject({ status: 4, stdout: "" });

      const plan = await remove(sandbox, "--dry-run", "--uncapture");
      expect(plan.status, plan.stderr).toBe(0);
      expect(plan.stdout).toMatch(/^would give back the CNI configuration in /m);
      expect(plan.stdout).toMatch(new RegExp(`^would release pod \\S+ \\(${engine}\\)$`, "m"));
      expect(sandbox.installed().conf).not.toBe(conf);

      const first = await remove(sandbox);
      expect(first.status, first.stderr + first.stdout).toBe(0);
      expect(sandbox.installed()).toEqual({ plugin: true, conf });
      expect(first.stdout).toMatch(new RegExp(`^pod \\S+ stays captured \\(${engine}\\)$`, "m"));
      expect(existsSync(sandbox.node.path("run/istio-cni/pluginevent.sock"))).toBe(false);
      expect(existsSync(sandbox.node.path("run/istio-cni/ambient-cni-state.json"))).toBe(false);
      expect((await appOf(client).fetch(httpUrl(server))).server).toBe("server");
      expect(await appOf(client).say("long", "still here")).toBe("still here");
      const { body } = await httpGet(sandbox.node.netnsPath, ipOf(server, 4), 8080, "/healthz");
      expect((JSON.parse(body) as Exchange).clientSeen).toContain(PROBE_SNAT_IPV4);
      const again = await remove(sandbox, "-o", "json");
      expect(JSON.parse(again.stdout)).toMatchObject({
        steps: [],
        captured: expect.arrayContaining([expect.objectContaining({ engines: [engine] })]),
      });

      const ended = remove(sandbox, "--uncapture");
      // New connections are in the clear at once, the open one has its time.
      await until("new connections are not captured", async () => {
        const { stdout } = await onNode(sandbox, "pods", "-o", "json");
        return !stdout.includes('"captured"');
      });
      expect(await appOf(client).say("long", "draining")).toBe("draining");
      await appOf(client).close("long");
      const second = await ended;
      expect(second.status, second.stderr + second.stdout).toBe(0);
      expect(second.stdout.match(/^released pod /gm)).toHaveLength(2);
      expect((await appOf(client).fetch(httpUrl(server))).clientSeen).toContain(ipOf(client, 4));
      const third = await remove(sandbox, "--uncapture");
      expect(third).toMatchObject({
        status: 0,
        stdout: expect.stringContaining("nothing of ours is left on this node"),
      });
      expect((await sandbox.node.run(["nft", "list", "tables"], { timeoutMs: 5000 })).stdout).toBe("");
      expect((await sandbox.node.run(["ls", "/sys/fs/bpf"], { timeoutMs: 5000 })).stdout).not.toContain("ambient");
    });
  },
);

test("killed in the middle of its own removal: the command finishes it, also where there is no bpffs", async () => {
  const agentEnv = { AMBIENT_CNI_UNCAPTURE_ON_REMOVAL: "true", AMBIENT_CNI_ENGINE: "nftables" };
  await withSandbox({ agentEnv, node: { bpffs: false } }, async (sandbox) => {
    const { conf } = await meshOfTwo(sandbox);
    sandbox.daemonSet.delete();
    const agent = sandbox.agent;
    agent?.signal("SIGTERM");
    await until("it has begun", () => sandbox.agentLog().includes("stopping for good"));
    await sandbox.endAgent("SIGKILL");
    const finished = await remove(sandbox, "--uncapture");
    expect(finished.status, finished.stderr + finished.stdout).toBe(0);
    expect(sandbox.installed()).toEqual({ plugin: true, conf });
    expect((await remove(sandbox)).stdout).toContain("nothing of ours is left on this node");
  });
});

test("seen from a debug container: the node below --host-root, its links leading where they lead there", async () => {
  await withSandbox({}, async (sandbox) => {
    const { conf } = await meshOfTwo(sandbox);
    const root = ["--host-root", "/proc/1/root", "--cni-net-dir", sandbox.node.path("etc/cni/net.d")];
    const running = await inDebugContainer(sandbox, "remove", ...root);
    expect(running).toMatchObject({ status: 1, stderr: expect.stringContaining("/proc/1/root/run/istio-cni/") });
    await sandbox.endAgent("SIGKILL");
    const removed = await inDebugContainer(sandbox, "remove", ...root);
    expect(removed.status, removed.stderr + removed.stdout).toBe(0);
    expect(sandbox.installed().conf).toBe(conf);
    expect(await onNode(sandbox, "remove", "--host-root", "relative")).toMatchObject({ status: 2 });
  });
});
