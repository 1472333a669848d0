// SPDX-License-Identifier: Apache-2.0
// The DaemonSet is deleted, or lives on: what the agent gives back when it is told to end, and what it leaves.
import { existsSync, readdirSync } from "node:fs";
import { expect, test } from "vitest";
import { PROBE_SNAT_IPV4, PROBE_SNAT_IPV6 } from "../../src/core/constants.ts";
import { agentRules } from "../../src/sandbox/apiserver/access.ts";
import type { Exchange } from "../../src/sandbox/app/protocol.ts";
import type { RunningPod } from "../../src/sandbox/kubelet.ts";
import { BRIDGE } from "../../src/sandbox/network.ts";
import { ipOf } from "../../src/sandbox/pod-records.ts";
import { httpGet } from "../../src/sandbox/probe.ts";
import type { Sandbox } from "../../src/sandbox/sandbox.ts";
import { until } from "../../src/sandbox/until.ts";
import { Wire } from "../../src/sandbox/wire.ts";
import { onNode as cliOnNode } from "../support/cli.ts";
import { appOf, httpUrl, LABEL, REDIRECTION, withSandbox, workload } from "../support/sandbox.ts";

const MARKER = "marker-of-the-removal";
/** What older charts give, less some slack. */
const IN_TIME_MS = 4800;

interface World {
  readonly sandbox: Sandbox;
  readonly client: RunningPod;
  readonly server: RunningPod;
  /** The configuration before the agent came. */
  readonly conf: string;
}

async function meshOfTwo(sandbox: Sandbox): Promise<World> {
  sandbox.describeMesh(
    ["client", "server", "third", "fourth"].map((name, index) => workload("shop", name, index)),
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
  for (const name of ["client", "server"]) {
    await until(`${name} is announced`, () => sandbox.annotation("shop", name, REDIRECTION) === "enabled");
  }
  await appOf(client).open("long", ipOf(server, 4), 9090);
  return { sandbox, client, server, conf };
}

/** True when a request from one pod to the other can be read on the wire between them. */
async function inTheClear({ sandbox, client, server }: World): Promise<boolean> {
  const wire = await Wire.listen(sandbox.node, BRIDGE);
  for (const family of [4, 6] as const) {
    const { server: name, clientSeen } = await appOf(client).fetch(httpUrl(server, family), MARKER);
    expect(name).toBe("server");
    expect(clientSeen).toContain(ipOf(client, family));
  }
  return (await wire.stop()).includes(MARKER);
}

/** Addresses that the application saw of probes from the node. */
async function probes({ sandbox }: World, pod: RunningPod): Promise<string[]> {
  const seen: string[] = [];
  for (const family of [4, 6] as const) {
    const { status, body } = await httpGet(sandbox.node.netnsPath, ipOf(pod, family), 8080, "/healthz");
    expect(status).toBe(200);
    const { clientSeen } = JSON.parse(body) as Exchange;
    seen.push(clientSeen.slice(0, clientSeen.lastIndexOf(":")));
  }
  return seen;
}

async function onNode(sandbox: Sandbox, ...argv: string[]): Promise<string> {
  return (await sandbox.node.run(argv, { timeoutMs: 5000 })).stdout;
}

/** What of ours is on the host besides files. */
async function hostObjects(sandbox: Sandbox): Promise<string[]> {
  const tables = (await onNode(sandbox, "nft", "list", "tables")).split("\n").filter((line) => line !== "");
  const pins = (await onNode(sandbox, "find", "/sys/fs/bpf", "-mindepth", "1", "-maxdepth", "1")).split("\n");
  const rules = await onNode(sandbox, "ip", "rule", "show");
  expect(rules.split("\n").length).toBeLessThanOrEqual(4);
  // progs.debug and maps.debug are the kernel's.
  return [...tables, ...pins.filter((line) => line !== "" && !line.endsWith(".debug"))];
}

const runFiles = (sandbox: Sandbox) =>
  [...readdirSync(sandbox.node.path("run/istio-cni")), ...readdirSync(sandbox.node.path("run/ztunnel"))].sort();

test.each(["ebpf", "nftables", "iptables"])(
  "%s: the DaemonSet is deleted: chain and host are given back, captured pods go on, the next agent adopts them",
  async (engine) => {
    await withSandbox({ agentEnv: { AMBIENT_CNI_ENGINE: engine }, chart: "1.24" }, async (sandbox) => {
      const world = await meshOfTwo(sandbox);
      const { client, server, conf } = world;
      expect(sandbox.installed().conf).not.toBe(conf);
      sandbox.daemonSet.delete();
      expect(await sandbox.endAgent("SIGTERM")).toBeLessThan(IN_TIME_MS);
      expect(sandbox.installed()).toEqual({ plugin: true, conf });
      expect(runFiles(sandbox)).toEqual([]);
      expect(sandbox.agentLog()).toContain("DaemonSet istio-system/istio-cni-node is gone");

      expect(await inTheClear(world)).toBe(false);
      expect(await appOf(client).say("long", "still here")).toBe("still here");
      expect(await probes(world, server)).toEqual([PROBE_SNAT_IPV4, PROBE_SNAT_IPV6]);
      // Nobody waits for the agent any more, in the mesh's namespaces neither.
      const third = await sandbox.kubelet.run({ namespace: "shop", name: "third" });
      expect((await appOf(third).fetch(httpUrl(server))).server).toBe("server");
      expect(sandbox.annotation("shop", "third", REDIRECTION)).toBeUndefined();

      sandbox.daemonSet.put();
      await sandbox.startAgent();
      await sandbox.ztunnelsConnected(1);
      await until("the third pod is announced", () => sandbox.annotation("shop", "third", REDIRECTION) === "enabled");
      expect(sandbox.installed().conf).not.toBe(conf);
      expect(await inTheClear(world)).toBe(false);
      expect(await appOf(client).say("long", "as ever")).toBe("as ever");
      for (const name of ["client", "server", "third"]) {
        expect(sandbox.annotation("shop", name, REDIRECTION)).toBe("enabled");
      }
      await sandbox.kubelet.remove(third);
      await sandbox.kubelet.remove(client);
      await sandbox.kubelet.remove(server);
      sandbox.daemonSet.delete();
      await sandbox.endAgent("SIGTERM");
      expect(await hostObjects(sandbox)).toEqual([]);
    });
  },
);

test.each(["ebpf", "nftables"])("%s: AMBIENT_CNI_UNCAPTURE_ON_REMOVAL releases all pods", async (engine) => {
  const agentEnv = { AMBIENT_CNI_ENGINE: engine, AMBIENT_CNI_UNCAPTURE_ON_REMOVAL: "true" };
  await withSandbox({ agentEnv, chart: "1.24" }, async (sandbox) => {
    const world = await meshOfTwo(sandbox);
    const { client, server, conf } = world;
    sandbox.daemonSet.delete();
    const ended = sandbox.endAgent("SIGTERM");
    // Drained while its connections are open: those go on, new ones are not captured.
    await until("the annotation is gone", () => sandbox.annotation("shop", "server", REDIRECTION) === undefined);
    expect(await appOf(client).say("long", "still here")).toBe("still here");
    await appOf(client).close("long");
    expect(await ended).toBeLessThan(IN_TIME_MS);
    expect(sandbox.installed()).toEqual({ plugin: true, conf });
    expect(await hostObjects(sandbox)).toEqual([]);
    expect(await inTheClear(world)).toBe(true);
    for (const pod of [client, server]) {
      expect(sandbox.annotation("shop", pod.name, REDIRECTION)).toBeUndefined();
      const inPod = (...argv: string[]) => onNode(sandbox, "nsenter", `--net=${pod.attachment.netns}`, "--", ...argv);
      expect(await inPod("nft", "list", "ruleset")).toBe("");
      expect(await inPod("ip", "rule", "show")).not.toContain("0x111");
      expect(await inPod("tc", "qdisc", "show")).not.toContain("clsact");
      expect(await inPod("ip", "route", "show", "table", "local")).not.toContain("local 255.");
    }
    expect(await probes(world, server)).not.toContain(PROBE_SNAT_IPV4);
  });
});

test("an upgrade, a refusal and a node that is not known leave everything in place", async () => {
  const agentMayNotAsk = agentRules().filter(({ resources }) => !resources.includes("daemonsets"));
  await withSandbox({ agentRules: agentMayNotAsk }, async (sandbox) => {
    const world = await meshOfTwo(sandbox);
    const chained = sandbox.installed();
    const host = await hostObjects(sandbox);
    sandbox.daemonSet.delete();
    await sandbox.endAgent("SIGTERM");
    expect(sandbox.installed()).toEqual(chained);
    expect(await hostObjects(sandbox)).toEqual(host);
    expect(sandbox.agentLog()).toMatch(/is not known.*403/);
    expect(existsSync(sandbox.node.path("run/istio-cni/ambient-cni-state.json"))).toBe(true);
    expect(await inTheClear(world)).toBe(false);
    expect(await appOf(world.client).say("long", "still here")).toBe("still here");
  });
});

test("another tag is an upgrade; a node that the DaemonSet does not select any more is given back", async () => {
  await withSandbox({}, async (sandbox) => {
    const world = await meshOfTwo(sandbox);
    const chained = sandbox.installed();
    sandbox.daemonSet.put({ image: "registry.example/ambient-cni:2.0.0" });
    await sandbox.endAgent("SIGTERM");
    expect(sandbox.installed()).toEqual(chained);
    await sandbox.startAgent();
    sandbox.daemonSet.put({ image: "registry.example/ambient-cni:2.0.0", nodeSelector: { pool: "mesh" } });
    await sandbox.endAgent("SIGTERM");
    expect(sandbox.installed().conf).toBe(world.conf);
    expect(sandbox.agentLog()).toContain("nodeSelector asks for pool=mesh");
    expect(await inTheClear(world)).toBe(false);
  });
});

test.each(["ebpf", "nftables"])(
  "%s: the DaemonSet runs istio-cni's image from now on: pods are handed over, and taken back when ours returns",
  async (engine) => {
    await withSandbox({ agentEnv: { AMBIENT_CNI_ENGINE: engine }, chart: "1.24" }, async (sandbox) => {
      const world = await meshOfTwo(sandbox);
      const { client, server } = world;
      const chained = sandbox.installed();
      sandbox.daemonSet.put({ image: "docker.io/istio/install-cni:1.30.0" });
      let requests = 0;
      let done = false;
      const failures: string[] = [];
      const traffic = (async () => {
        while (!done) {
          requests += 1;
          await appOf(client)
            .fetch(httpUrl(server))
            .catch((error: unknown) => failures.push(String(error)));
        }
      })();
      expect(await sandbox.endAgent("SIGTERM")).toBeLessThan(IN_TIME_MS);
      // What istio-cni's installer overwrites stays for it: until then new pods wait.
      expect(sandbox.installed()).toEqual(chained);
      for (const pod of [client, server]) {
        const { stdout } = await sandbox.node.run(
          ["nsenter", `--net=${pod.attachment.netns}`, "--", "sh", "-c", "iptables-nft-save; iptables-legacy-save"],
          { timeoutMs: 5000 },
        );
        expect(stdout).toContain("ISTIO_OUTPUT");
        expect(sandbox.annotation("shop", pod.name, REDIRECTION)).toBe("enabled");
      }
      expect(await inTheClear(world)).toBe(false);
      expect(await appOf(client).say("long", "still here")).toBe("still here");
      // In the gap before istio-cni has its own exemption, ours ends by itself.
      expect(await probes(world, server)).toEqual([PROBE_SNAT_IPV4, PROBE_SNAT_IPV6]);
      const set = await onNode(sandbox, "nft", "list", "set", "inet", "ambient-cni-probes", "pods-v4");
      expect(set.match(/ timeout 1h /g)).toHaveLength(2);
      // Open connections still need eBPF; a removal by hand leaves istio-cni's pods alone.
      const byHand = await cliOnNode(sandbox, "remove", "--uncapture");
      expect(byHand.status, byHand.stderr).toBe(0);
      expect(byHand.stdout.includes("is istio-cni's")).toBe(engine === "ebpf");
      expect(byHand.stdout).not.toContain("released");
      expect(await inTheClear(world)).toBe(false);
      expect(await appOf(client).say("long", "and on")).toBe("and on");

      sandbox.daemonSet.put();
      await sandbox.startAgent();
      await sandbox.ztunnelsConnected(1);
      expect(await inTheClear(world)).toBe(false);
      done = true;
      await traffic;
      expect(failures).toEqual([]);
      expect(requests).toBeGreaterThan(20);
      expect(await appOf(client).say("long", "as ever")).toBe("as ever");
    });
  },
);
