// SPDX-License-Identifier: Apache-2.0
// The agent in its jail, with something going wrong beside it.
import { connect } from "node:net";
import { expect, test } from "vitest";
import { native } from "../../src/native/load.ts";
import { BRIDGE } from "../../src/sandbox/network.ts";
import type { Sandbox } from "../../src/sandbox/sandbox.ts";
import { until } from "../../src/sandbox/until.ts";
import { Wire } from "../../src/sandbox/wire.ts";
import { encodeHello } from "../../src/zds/peer-codec.ts";
import { appOf, httpUrl, LABEL, REDIRECTION, withSandbox, workload } from "../support/sandbox.ts";

const MARKER = "marker-in-adversity";

async function clientAndServer(sandbox: Sandbox) {
  sandbox.describeMesh(
    [workload("shop", "client", 0), workload("shop", "server", 1), workload("shop", "third", 2)],
    [],
  );
  sandbox.api.put({ kind: "Namespace", metadata: { name: "shop" } });
  sandbox.label("shop", LABEL, "ambient");
  await sandbox.startAgent();
  const ztunnel = sandbox.startZtunnel();
  await sandbox.ztunnelsConnected(1);
  const client = await sandbox.kubelet.run({ namespace: "shop", name: "client" });
  const server = await sandbox.kubelet.run({ namespace: "shop", name: "server" });
  return { ztunnel, client, server };
}

const FLUSHED = {
  nftables: { flush: ["nft", "flush", "ruleset"], look: ["nft", "list", "tables"], back: "ambient-cni" },
  ebpf: {
    flush: [
      "sh",
      "-c",
      "tc qdisc del dev eth0 clsact; tc qdisc del dev lo clsact; ip route flush table local type local root 255.0.0.0/8",
    ],
    look: ["sh", "-c", "tc filter show dev eth0 egress; tc filter show dev lo ingress; ip route show table local"],
    back: /ambient_leave[\s\S]*ambient_loop[\s\S]*local 255\.128\.0\.0\/16/,
  },
} as const;

test.each(["nftables", "ebpf"] as const)(
  "what %s has in a pod is flushed, and back before its next requests, with and without a ztunnel",
  async (engine) => {
    await withSandbox({ agentEnv: { AMBIENT_CNI_ENGINE: engine } }, async (sandbox) => {
      const { flush, look, back } = FLUSHED[engine];
      const { ztunnel, client, server } = await clientAndServer(sandbox);
      const inPod = (...argv: string[]) =>
        sandbox.node.run(["nsenter", `--net=${client.attachment.netns}`, "--", ...argv], { timeoutMs: 5000 });
      const flushed = async () => {
        await inPod(...flush);
        await until("it is back", async () => (await inPod(...look)).stdout.search(back) >= 0, 15_000);
        // The command that looked has seen it; give the capture's own verification its moment.
        await new Promise((resolve) => setTimeout(resolve, 200));
      };
      await flushed();
      const wire = await Wire.listen(sandbox.node, BRIDGE);
      const { clientSeen } = await appOf(client).fetch(httpUrl(server), MARKER);
      expect(clientSeen.startsWith("10.66.0.2:")).toBe(true);
      await ztunnel.child.end(10_000);
      await flushed();
      await expect(appOf(client).fetch(httpUrl(server), MARKER)).rejects.toMatchObject({ code: "ECONNREFUSED" });
      expect((await wire.stop()).includes(MARKER)).toBe(false);
      expect(sandbox.annotation("shop", "client", REDIRECTION)).toBe("enabled");
    });
  },
);

test("a ztunnel that never acks holds nothing up for ever: pods wait, ADDs fail with the reason, the next one gets all", async () => {
  await withSandbox({}, async (sandbox) => {
    sandbox.describeMesh([workload("shop", "client", 0), workload("shop", "server", 1)], []);
    sandbox.api.put({ kind: "Namespace", metadata: { name: "shop" } });
    await sandbox.startAgent();
    const client = await sandbox.kubelet.run({ namespace: "shop", name: "client" });
    const server = await sandbox.kubelet.run({ namespace: "shop", name: "server" });
    let ended = false;
    const silent = native().seqpacketConnect(sandbox.node.path("run/ztunnel/ztunnel.sock"), {
      packet: (_message, fds) => {
        for (const fd of fds) native().close(fd);
      },
      end: () => {
        ended = true;
      },
    });
    silent.send(encodeHello());
    sandbox.label("shop", LABEL, "ambient");
    await until("the pod waits", () => sandbox.annotation("shop", "client", REDIRECTION) === "pending");
    await expect(sandbox.kubelet.run({ namespace: "shop", name: "third" })).rejects.toMatchObject({ code: 11 });
    await until("the silent peer is dropped", () => ended, 15_000);
    sandbox.startZtunnel();
    for (const name of ["client", "server"]) {
      await until(`${name} is captured`, () => sandbox.annotation("shop", name, REDIRECTION) === "enabled", 30_000);
    }
    expect((await appOf(client).fetch(httpUrl(server))).server).toBe("server");
  });
});

test("garbage on the agent's sockets harms nobody", async () => {
  await withSandbox({}, async (sandbox) => {
    const { client, server } = await clientAndServer(sandbox);
    const throwAt = (path: string, bytes: Buffer) =>
      new Promise<void>((resolve) => {
        const socket = connect(path, () => socket.end(bytes));
        socket.on("error", () => resolve());
        socket.on("close", () => resolve());
        socket.resume();
      });
    for (const name of ["pluginevent.sock", "log.sock"]) {
      const path = sandbox.node.path("run/istio-cni", name);
      await throwAt(path, Buffer.alloc(4 << 20, 0x41));
      await throwAt(path, Buffer.from("POST /v1/add HTTP/1.1\r\nContent-Length: 5\r\n\r\n{nul"));
      await throwAt(path, Buffer.from("POST /v1/add HTTP/1.1\r\nContent-Length: 2\r\n\r\n[]"));
    }
    const zds = sandbox.node.path("run/ztunnel/ztunnel.sock");
    for (const message of [Buffer.from([0xff, 0xff]), Buffer.alloc(4096, 1), encodeHello(7)]) {
      const gone = new Promise<void>((resolve) => {
        const peer = native().seqpacketConnect(zds, { packet: () => undefined, end: () => resolve() });
        peer.send(message);
      });
      await gone;
    }
    const third = await sandbox.kubelet.run({ namespace: "shop", name: "third" });
    expect((await appOf(third).fetch(httpUrl(server))).server).toBe("server");
    expect((await appOf(client).fetch(httpUrl(server))).server).toBe("server");
  });
});
