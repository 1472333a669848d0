// SPDX-License-Identifier: Apache-2.0
// What the path says about a captured connection is heard, and the pod's conntrack never sees one.
import { once } from "node:events";
import { createServer, type Server, Socket } from "node:net";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import type { NodeDataplane } from "../../../../src/dataplane/dataplane.ts";
import { native } from "../../../../src/native/load.ts";
import { createNetns, type HeldNetns } from "../../../../src/native/netns.ts";
import { specOf, startDataplane } from "../../../support/lab-dataplane.ts";
import { EBPF } from "../../../support/lab-engines.ts";
import { Call, EchoServer, outcome } from "../../../support/lab-peer.ts";
import { LabZtunnel } from "../../../support/lab-ztunnel.ts";
import { inNetns, ipOf, NetnsLab } from "../../../support/netns-lab.ts";

const APP = 8080;
const BULK = 8081;
const SERVICE = 80;
const MEBIBYTE = 1 << 20;
const NARROW = 1300;
const FAR = { 4: "10.77.0.2", 6: "fd77::2" } as const;
const NEAR = { 4: "10.77.0.1", 6: "fd77::1" } as const;

let dataplane: NodeDataplane;
let lab: NetnsLab;
let ztunnel: LabZtunnel;
const servers: EchoServer[] = [];

beforeAll(async () => {
  dataplane = await startDataplane(native(), EBPF);
});
afterAll(() => dataplane.close());
beforeEach(async () => {
  lab = NetnsLab.create();
  ztunnel = await LabZtunnel.start(lab.pod.netns);
});
afterEach(async () => {
  for (const server of servers.splice(0)) await server.close();
  await ztunnel.close();
  lab.close();
});

/** A server in the pod that sends a mebibyte to whoever calls. */
async function bulkServer(): Promise<Server> {
  const fd = native().tcpListen(lab.pod.netns.fd, { family: 6, bind: { address: "::", port: BULK } });
  const server = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.end(Buffer.alloc(MEBIBYTE, "x"));
  });
  server.listen({ fd });
  await once(server, "listening");
  return server;
}

/** A netns behind the lab's client, which sends no more than NARROW bytes in one packet to it. */
async function behindNarrowHop(): Promise<HeldNetns> {
  const far = createNetns();
  native().vethAdd(lab.client.netns.fd, "veth1", "eth0", far.fd);
  native().linkUp(lab.client.netns.fd, "veth1");
  native().linkUp(far.fd, "eth0");
  for (const family of [4, 6] as const) {
    native().addressAdd(lab.client.netns.fd, "veth1", NEAR[family], family === 4 ? 24 : 64);
    native().addressAdd(far.fd, "eth0", FAR[family], family === 4 ? 24 : 64);
    await inNetns(far, "ip", `-${family}`, "route", "add", "default", "via", NEAR[family]);
  }
  native().sysctlSet(lab.client.netns.fd, "net/ipv4/ip_forward", "1");
  native().sysctlSet(lab.client.netns.fd, "net/ipv6/conf/all/forwarding", "1");
  // The far end itself announces a larger segment: only the router's word makes them smaller.
  await inNetns(lab.client.netns, "ip", "link", "set", "veth1", "mtu", String(NARROW));
  return far;
}

/** Bytes until the other side has closed, or has been silent for too long. */
async function received(fd: number): Promise<number> {
  const socket = new Socket({ fd });
  socket.setTimeout(5000, () => socket.destroy());
  socket.resume();
  await once(socket, "close");
  return socket.bytesRead;
}

test.each([4, 6] as const)("IPv%i: a mebibyte passes a hop with a smaller MTU", async (family) => {
  const far = await behindNarrowHop();
  const server = await bulkServer();
  await dataplane.capture(lab.pod.netns, specOf(lab));
  const fd = await native().tcpConnect(far.fd, { family, address: ipOf(lab.pod, family), port: BULK, timeout: 5000 });
  expect(await received(fd)).toBe(MEBIBYTE);
  expect(ztunnel.accepted.map(({ port, peer }) => ({ port, from: peer.address }))).toEqual([
    { port: 15006, from: FAR[family] },
  ]);
  const told = await inNetns(lab.pod.netns, "ip", `-${family}`, "route", "show", "cache");
  expect(told, "the router has said so").toContain(`mtu ${NARROW}`);
  server.close();
  far.close();
});

test("no connection of a captured pod becomes an entry of its conntrack", async () => {
  servers.push(
    await EchoServer.start(lab.pod.netns, "app", { family: 6, bind: { address: "::", port: APP } }),
    await EchoServer.start(lab.client.netns, "remote", { family: 6, bind: { address: "::", port: SERVICE } }),
  );
  // Loads conntrack, and shows that it counts where somebody asks for it.
  await inNetns(
    lab.client.netns,
    "nft",
    "table inet t { chain c { type filter hook input priority 0; ct state new; }; }",
  );
  await dataplane.capture(lab.pod.netns, specOf(lab));
  for (const family of [4, 6] as const) {
    for (let i = 0; i < 5; i++) {
      expect(await outcome(Call.open(lab.pod.netns, family, ipOf(lab.client, family), SERVICE))).toBe("remote");
      expect(await outcome(Call.open(lab.client.netns, family, ipOf(lab.pod, family), APP))).toBe("app");
    }
  }
  const entries = async (netns: HeldNetns) =>
    Number(await inNetns(netns, "cat", "/proc/sys/net/netfilter/nf_conntrack_count"));
  expect(await entries(lab.client.netns)).toBeGreaterThanOrEqual(20);
  expect(await entries(lab.pod.netns)).toBe(0);
});
