// SPDX-License-Identifier: Apache-2.0
// What ztunnel does with connections, seen from both ends and from its access log.
import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { native } from "../../../src/native/load.ts";
import { SERVICE, VIP } from "./mesh.ts";
import type { TestPod } from "./pods.ts";
import { dial, type End, ipOf, Listener } from "./tcp.ts";
import { World } from "./world.ts";

let world: World;
let client: TestPod;
let server: TestPod;
let outsider: TestPod;

beforeAll(async () => {
  world = await World.create();
  client = world.pod("client");
  server = world.pod("server");
  outsider = world.pod("outsider");
});

afterAll(() => world[Symbol.asyncDispose]());

const CLIENT_ID = "spiffe://cluster.local/ns/default/sa/client-sa";
const SERVER_ID = "spiffe://cluster.local/ns/default/sa/server-sa";

function show(address: string, port: number): string {
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}

async function pair(from: TestPod, family: 4 | 6, to: TestPod, port: number, address = ipOf(to, family)) {
  using listener = await Listener.open(to, 8080);
  const near = await dial(from, family, address, port);
  const far = await listener.accept();
  near.send("ping");
  await far.expect("ping");
  far.send("pong");
  await near.expect("pong");
  const ends = { near, far, nearSaw: near.remote, farSaw: far.remote, farIs: far.local, own: near.local };
  return { ...ends, close: () => closeBoth(near, far) };
}

async function closeBoth(near: End, far: End): Promise<void> {
  near.finish();
  await far.end();
  far.finish();
  await near.end();
}

describe.each([4, 6] as const)("IPv%s", (family) => {
  it("between captured pods goes as HBONE, with both identities, and the server sees the client's address", async () => {
    const target = ipOf(server, family);
    const { nearSaw, farSaw, farIs, own, close } = await pair(client, family, server, 8080);
    expect(nearSaw).toEqual({ address: target, port: 8080 });
    expect(farSaw.address).toBe(ipOf(client, family));
    expect(farIs).toEqual({ address: target, port: 8080 });
    await close();
    const src = show(own.address, own.port);
    const outbound = await world.ztunnel.connection({ direction: "outbound", "src.addr": src });
    expect(outbound).toMatchObject({
      "dst.addr": show(target, 15008),
      "dst.hbone_addr": show(target, 8080),
      "src.identity": CLIENT_ID,
      "dst.identity": SERVER_ID,
      "src.workload": "client",
      "dst.workload": "server",
      bytes_sent: "4",
      bytes_recv: "4",
    });
    const inbound = await world.ztunnel.connection({
      direction: "inbound",
      "dst.hbone_addr": show(target, 8080),
      "src.identity": CLIENT_ID,
    });
    expect(inbound).toMatchObject({
      "dst.addr": show(target, 15008),
      "dst.identity": SERVER_ID,
      "dst.workload": "server",
    });
    expect(inbound["src.addr"]).toContain(ipOf(client, family));
  });

  it("goes the other way round too", async () => {
    const { farSaw, own, close } = await pair(server, family, client, 8080);
    expect(farSaw.address).toBe(ipOf(server, family));
    await close();
    const outbound = await world.ztunnel.connection({ direction: "outbound", "src.addr": show(own.address, own.port) });
    expect(outbound).toMatchObject({ "src.identity": SERVER_ID, "dst.identity": CLIENT_ID });
  });

  it("to a service address reaches an endpoint's port", async () => {
    const { nearSaw, farSaw, farIs, own, close } = await pair(client, family, server, 80, VIP[family]);
    expect(nearSaw).toEqual({ address: VIP[family], port: 80 });
    expect(farSaw.address).toBe(ipOf(client, family));
    expect(farIs).toEqual({ address: ipOf(server, family), port: 8080 });
    await close();
    const outbound = await world.ztunnel.connection({ direction: "outbound", "src.addr": show(own.address, own.port) });
    expect(outbound).toMatchObject({ "dst.service": SERVICE, "dst.hbone_addr": show(ipOf(server, family), 8080) });
  });

  it("to a port that the service does not have ends at once", async () => {
    const near = await dial(client, family, VIP[family], 81);
    expect(await near.end()).toBe("");
    const { address, port } = near.local;
    expect(address).toBe(ipOf(client, family));
    const denied = await world.ztunnel.connection({ "dst.addr": show(VIP[family], 81) }, "connection failed");
    expect(denied["src.addr"]).toBe(show(address, port));
    expect(denied.error).toContain("no healthy upstream");
    near.finish();
  });

  it("from outside the mesh comes in plain, with the client's address", async () => {
    const { farSaw, farIs, own, close } = await pair(outsider, family, server, 8080);
    expect(farSaw.address).toBe(ipOf(outsider, family));
    expect(farIs).toEqual({ address: ipOf(server, family), port: 8080 });
    await close();
    const inbound = await world.ztunnel.connection({ direction: "inbound", "src.addr": show(own.address, own.port) });
    expect(inbound["dst.addr"]).toBe(show(ipOf(server, family), 8080));
    expect(inbound).not.toHaveProperty("src.identity");
    expect(inbound).not.toHaveProperty("dst.hbone_addr");
  });

  it.each(["outsider", "plain"])("to %s goes out plain", async (name) => {
    const target = world.pod(name);
    const { farSaw, own, close } = await pair(client, family, target, 8080);
    expect(farSaw.address).toBe(ipOf(client, family));
    await close();
    const outbound = await world.ztunnel.connection({ direction: "outbound", "src.addr": show(own.address, own.port) });
    expect(outbound["dst.addr"]).toBe(show(ipOf(target, family), 8080));
    expect(outbound).not.toHaveProperty("src.identity");
  });

  it("to the pod's own service comes back to it", async () => {
    const { farSaw, farIs, close } = await pair(server, family, server, 80, VIP[family]);
    expect(farSaw.address).toBe(ipOf(server, family));
    expect(farIs).toEqual({ address: ipOf(server, family), port: 8080 });
    await close();
  });

  it.each([15001, 15006, 15008])(
    "to port %i of the proxy is refused from the outside and through the mesh",
    async (port) => {
      const target = ipOf(server, family);
      const inside = await dial(client, family, target, port);
      expect(await inside.end()).toBe("");
      const through = await world.ztunnel.connection({ direction: "outbound", "dst.hbone_addr": show(target, port) });
      expect(through.error).toBe("http status: 503 Service Unavailable");
      inside.finish();
      if (port === 15008) return;
      const outside = await dial(outsider, family, target, port);
      expect(await outside.end()).toBe("");
      const denied = await world.ztunnel.connection(
        { "src.addr": show(outside.local.address, outside.local.port) },
        "connection failed",
      );
      expect(denied.error).toBe("attempted recursive call to ourselves");
      outside.finish();
    },
  );

  it("to the proxy on loopback is refused", async () => {
    const loopback = family === 4 ? "127.0.0.1" : "::1";
    const own = await dial(client, family, loopback, 15001);
    expect(await own.end()).toBe("");
    const denied = await world.ztunnel.connection({ "dst.addr": show(loopback, 15001) }, "connection failed");
    expect(denied).toMatchObject({ direction: "outbound", error: "attempted recursive call to ourselves" });
    own.finish();
  });

  it("a closed port of the pod ends the connection, mesh or not", async () => {
    const inside = await dial(client, family, ipOf(server, family), 8081);
    expect(await inside.end()).toBe("");
    const outside = await dial(outsider, family, ipOf(server, family), 8081);
    expect(await outside.end()).toBe("");
    inside.finish();
    outside.finish();
  });
});

describe("15008 itself", () => {
  it("wants TLS with a certificate, and lets nothing through without", async () => {
    using listener = await Listener.open(server, 8080);
    const raw = await dial(outsider, 4, server.ipv4, 15008);
    raw.send("CONNECT 10.77.0.3:8080 HTTP/1.1\r\nHost: 10.77.0.3:8080\r\n\r\n");
    expect(await raw.end()).not.toContain("200");
    raw.finish();
    // The next connection of the server is one made now: nothing came through before it.
    const near = await dial(outsider, 4, server.ipv4, 8080);
    near.send("marker");
    const far = await listener.accept();
    await far.expect("marker");
    await closeBoth(near, far);
  });
});

describe.each([
  ["HBONE", () => client],
  ["plain", () => outsider],
] as const)("a %s connection", (_kind, from) => {
  it("closes one way at a time, client first", async () => {
    using listener = await Listener.open(server, 8080);
    const near = await dial(from(), 4, server.ipv4, 8080);
    near.send("question");
    near.finish();
    const far = await listener.accept();
    expect(await far.end()).toBe("question");
    await sleep(100);
    far.send("answer");
    far.finish();
    expect(await near.end()).toBe("answer");
  });

  it("closes one way at a time, server first", async () => {
    using listener = await Listener.open(server, 8080);
    const near = await dial(from(), 4, server.ipv4, 8080);
    const far = await listener.accept();
    far.send("goodbye");
    far.finish();
    expect(await near.end()).toBe("goodbye");
    await sleep(100);
    near.send("last words");
    near.finish();
    expect(await far.end()).toBe("last words");
  });

  it("ends on both sides when either resets it", async () => {
    using listener = await Listener.open(server, 8080);
    for (const who of ["near", "far"] as const) {
      const near = await dial(from(), 4, server.ipv4, 8080);
      const far = await listener.accept();
      near.send("x");
      await far.expect("x");
      const [resetting, other] = who === "near" ? [near, far] : [far, near];
      resetting.reset();
      expect(await other.end()).toBe("");
      other.finish();
    }
  });

  it("carries 32 MiB each way at once, unharmed", async () => {
    using listener = await Listener.open(server, 8080);
    const block = randomBytes(1 << 20);
    const near = await dial(from(), 4, server.ipv4, 8080);
    const far = await listener.accept();
    const count = async (end: End) => {
      let bytes = 0;
      let good = true;
      end.socket.removeAllListeners("data");
      end.socket.on("data", (chunk: Buffer) => {
        const at = bytes % block.length;
        const head = Math.min(chunk.length, block.length - at);
        good &&= chunk.subarray(0, head).equals(block.subarray(at, at + head));
        bytes += chunk.length;
      });
      await new Promise((resolve) => end.socket.once("end", resolve));
      return { bytes, good };
    };
    const send = async (end: End) => {
      for (let i = 0; i < 32; i++) {
        if (!end.socket.write(block)) await new Promise((resolve) => end.socket.once("drain", resolve));
      }
      end.finish();
    };
    const [atFar, atNear] = await Promise.all([count(far), count(near), send(near), send(far)]);
    expect(atFar).toEqual({ bytes: 32 << 20, good: true });
    expect(atNear).toEqual({ bytes: 32 << 20, good: true });
  });

  it("stops a sender that nobody reads from, and goes on when somebody does", async () => {
    using listener = await Listener.open(server, 8080);
    const near = await dial(from(), 4, server.ipv4, 8080);
    const far = await listener.acceptPaused();
    const block = Buffer.alloc(1 << 20);
    let sent = 0;
    let stuck = false;
    for (; sent < 256 && !stuck; sent++) {
      if (near.socket.write(block)) continue;
      stuck = await Promise.race([
        new Promise<boolean>((resolve) => near.socket.once("drain", () => resolve(false))),
        sleep(1500).then(() => true),
      ]);
    }
    // Socket buffers and windows hold a few dozen MiB at most; without back pressure all 256 would be gone.
    expect(stuck).toBe(true);
    near.finish();
    let received = 0;
    far.on("data", (chunk: Buffer) => {
      received += chunk.length;
    });
    far.resume();
    await new Promise((resolve) => far.once("end", resolve));
    expect(received).toBe(sent * block.length);
    far.end();
  });
});

it("500 short connections share their tunnels", async () => {
  using listener = await Listener.open(server, 8080);
  listener.echo("server");
  const talk = async () => {
    const near = await dial(client, 4, server.ipv4, 8080);
    near.send("hello");
    near.finish();
    return near.end();
  };
  const answers: string[] = [];
  for (let round = 0; round < 10; round++) answers.push(...(await Promise.all(Array.from({ length: 50 }, talk))));
  expect(new Set(answers)).toEqual(new Set([`server ${client.ipv4}\nhello`]));
  const tunnels = native()
    .sockets(client.netns.fd, { protocol: "tcp", states: [1] })
    .filter((each) => each.dstPort === 15008 && each.dst.includes(server.ipv4));
  expect(tunnels.length).toBeGreaterThan(0);
  expect(tunnels.length).toBeLessThanOrEqual(3);
  expect(new Set(tunnels.map((each) => each.mark))).toEqual(new Set([0x539]));
});

it("config_dump lists what is open", async () => {
  const { near, far, close } = await pair(client, 4, server, 8080);
  const src = show(client.ipv4, near.local.port);
  const state = await world.ztunnel.workloadState();
  expect(state["uid-client"]?.connections).toMatchObject({
    outbound: [{ src, originalDst: show(server.ipv4, 8080), actualDst: show(server.ipv4, 15008), protocol: "HBONE" }],
  });
  expect(state["uid-server"]?.connections).toMatchObject({
    inbound: [{ actualDst: show(server.ipv4, 8080), protocol: "HBONE" }],
  });
  expect(far.remote.address).toBe(client.ipv4);
  await close();
});
