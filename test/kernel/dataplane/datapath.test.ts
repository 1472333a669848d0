// SPDX-License-Identifier: Apache-2.0
// Each row of the table "What must be true" (docs/ARCHITECTURE.md), with real sockets that say who
// answered and which addresses each end saw.
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { LOCAL_MARK, PROBE_SNAT_IPV4, PROBE_SNAT_IPV6, ZTUNNEL_MARK } from "../../../src/core/constants.ts";
import type { CaptureSpec } from "../../../src/core/ports/dataplane.ts";
import type { NodeDataplane } from "../../../src/dataplane/dataplane.ts";
import { native } from "../../../src/native/load.ts";
import { createNetns, type HeldNetns } from "../../../src/native/netns.ts";
import { specOf, startDataplane, withoutSysctls } from "../../support/lab-dataplane.ts";
import { ENGINES } from "../../support/lab-engines.ts";
import { Call, EchoServer, outcome } from "../../support/lab-peer.ts";
import { LabZtunnel } from "../../support/lab-ztunnel.ts";
import { inNetns, ipOf, NetnsLab } from "../../support/netns-lab.ts";

const APP = 8080;
const SERVICE = 80;

let dataplane: NodeDataplane;
let lab: NetnsLab;
let ztunnel: LabZtunnel;
const servers: EchoServer[] = [];

beforeEach(async () => {
  lab = NetnsLab.create();
  ztunnel = await LabZtunnel.start(lab.pod.netns);
  servers.push(
    await EchoServer.start(lab.pod.netns, "app", { family: 6, bind: { address: "::", port: APP } }),
    await EchoServer.start(lab.client.netns, "remote", { family: 6, bind: { address: "::", port: SERVICE } }),
  );
});
afterEach(async () => {
  for (const server of servers.splice(0)) await server.close();
  await ztunnel.close();
  lab.close();
});

const capture = (changes: Partial<CaptureSpec> = {}) => dataplane.capture(lab.pod.netns, specOf(lab, changes));

describe.each(ENGINES)("$name", (engine) => {
  describe.each([
    ["with the pod's sysctls", 4, native()],
    ["with the pod's sysctls", 6, native()],
    ["with sysctls denied", 4, withoutSysctls],
    ["with sysctls denied", 6, withoutSysctls],
  ] as const)("%s, IPv%i", (_, family, binding) => {
    beforeAll(async () => {
      dataplane = await startDataplane(binding, engine);
    });
    afterAll(() => dataplane.close());

    const podIp = () => ipOf(lab.pod, family);
    const clientIp = () => ipOf(lab.client, family);
    const fromPod = (address: string, port: number) => Call.open(lab.pod.netns, family, address, port);
    const fromClient = (address: string, port: number) => Call.open(lab.client.netns, family, address, port);

    test("app to a remote goes to 15001, which learns the destination and sees the pod's address", async () => {
      await capture();
      const call = await fromPod(clientIp(), SERVICE);
      const { name, remote } = await call.greeting();
      expect(name).toBe("remote");
      expect(call.peer).toEqual({ address: clientIp(), port: SERVICE });
      expect(call.own.address).toBe(podIp());
      expect(ztunnel.accepted).toEqual([
        { port: 15001, peer: call.own, original: { address: clientIp(), port: SERVICE } },
      ]);
      expect(remote.address, "ztunnel's own leg wears the pod's address").toBe(podIp());
      call.close();
    });

    test("a remote to the pod goes to 15006, and the app sees the client's own address", async () => {
      await capture();
      const call = await fromClient(podIp(), APP);
      const { name, local, remote } = await call.greeting();
      expect(name).toBe("app");
      expect(call.peer).toEqual({ address: podIp(), port: APP });
      expect(local).toEqual({ address: podIp(), port: APP });
      expect(remote.address).toBe(call.own.address);
      expect(ztunnel.accepted).toEqual([{ port: 15006, peer: call.own, original: { address: podIp(), port: APP } }]);
      expect(await call.echo("hello")).toBe("hello");
      call.close();
    });

    test("a remote to 15008 reaches ztunnel untouched, the local address stays the pod's", async () => {
      await capture();
      const call = await fromClient(podIp(), 15008);
      const { name, local } = await call.greeting();
      expect(name).toBe("hbone");
      expect(local).toEqual({ address: podIp(), port: 15008 });
      call.close();
    });

    test.each([15001, 15006])("a remote to %i ends at once, and never as a loop", async (port) => {
      await capture();
      expect(["ECONNREFUSED", "ECONNRESET", "closed"]).toContain(await outcome(fromClient(podIp(), port)));
      expect(ztunnel.via({ address: podIp(), port })).not.toContain(15001);
    });

    test.each([15001, 15006])("with inbound bypassed a remote to %i is refused all the same", async (port) => {
      await capture({ bypassInbound: true });
      expect(await outcome(fromClient(podIp(), port))).toBe("ECONNREFUSED");
      expect(ztunnel.accepted).toEqual([]);
    });

    test("app to loopback is direct", async () => {
      await capture();
      const addresses = family === 4 ? ["127.0.0.1", "127.8.9.10"] : ["::1", "::ffff:127.0.0.1"];
      for (const address of addresses) {
        const call = await fromPod(address, APP);
        expect((await call.greeting()).name).toBe("app");
        call.close();
      }
      expect(ztunnel.accepted).toEqual([]);
    });

    test("app to its own pod address is direct, but for 15001 and 15006, which are refused", async () => {
      await capture();
      const call = await fromPod(podIp(), APP);
      const { name, remote } = await call.greeting();
      expect({ name, from: remote }).toEqual({ name: "app", from: call.own });
      call.close();
      expect(await outcome(fromPod(podIp(), 15001))).toBe("ECONNREFUSED");
      expect(await outcome(fromPod(podIp(), 15006))).toBe("ECONNREFUSED");
      expect(ztunnel.accepted).toEqual([]);
    });

    test("ztunnel itself can't reach its own 15001 by the pod's address: no loop", async () => {
      await capture();
      const own = Call.open(lab.pod.netns, family, podIp(), 15001, { mark: ZTUNNEL_MARK });
      expect(await outcome(own)).toBe("ECONNREFUSED");
    });

    test("what ztunnel sends is never captured", async () => {
      await capture();
      const call = await Call.open(lab.pod.netns, family, clientIp(), SERVICE, { mark: ZTUNNEL_MARK });
      const { name, remote } = await call.greeting();
      expect({ name, from: remote }).toEqual({ name: "remote", from: call.own });
      expect(ztunnel.accepted).toEqual([]);
      call.close();
    });

    test("ztunnel's connection from the pod to itself (its own service) works", async () => {
      await capture();
      const call = await Call.open(lab.pod.netns, family, podIp(), 15008, { mark: ZTUNNEL_MARK });
      expect((await call.greeting()).name).toBe("hbone");
      call.close();
      const leg = await Call.open(lab.pod.netns, family, podIp(), APP, { mark: ZTUNNEL_MARK });
      expect((await leg.greeting()).name).toBe("app");
      leg.close();
    });

    test.each(["eth0", "lo"])("a remote to another address of the pod on %s goes to 15006 as well", async (ifname) => {
      const alias = family === 4 ? "10.66.7.7" : "fd66::77";
      native().addressAdd(lab.pod.netns.fd, ifname, alias, family === 4 ? 32 : 128);
      if (ifname === "lo") {
        const via = { family, table: 254, type: "unicast", dst: alias, prefix: family === 4 ? 32 : 128 } as const;
        const veth0 = native()
          .links(lab.client.netns.fd)
          .find(({ name }) => name === "veth0");
        native().routeReplace(lab.client.netns.fd, { ...via, oif: veth0?.index ?? 0, gateway: podIp() });
      }
      await capture();
      expect(await outcome(fromClient(alias, APP))).toBe("app");
      expect(ztunnel.via({ address: alias, port: APP })).toEqual([15006]);
    });

    test("a probe from the exempt address reaches the app directly", async () => {
      const probe = lab.remote(family, family === 4 ? PROBE_SNAT_IPV4 : PROBE_SNAT_IPV6);
      await capture();
      const call = await Call.open(lab.client.netns, family, podIp(), APP, { bind: { address: probe, port: 0 } });
      const { name, remote } = await call.greeting();
      expect({ name, from: remote }).toEqual({ name: "app", from: call.own });
      expect(ztunnel.accepted).toEqual([]);
      call.close();
    });

    test("a closed port answers with a reset within milliseconds", async () => {
      await capture();
      const began = performance.now();
      expect(await outcome(fromClient(podIp(), 9999))).toMatch(/closed|ECONNRESET/);
      expect(performance.now() - began).toBeLessThan(1000);
      expect(ztunnel.failures.join()).toContain("ECONNREFUSED");
    });

    test("without ztunnel's listeners new connections are refused, open ones go on", async () => {
      await capture();
      const inbound = await fromClient(podIp(), APP);
      const outbound = await fromPod(clientIp(), SERVICE);
      await inbound.greeting();
      await outbound.greeting();
      await ztunnel.closeListeners();
      expect(await outcome(fromClient(podIp(), APP))).toBe("ECONNREFUSED");
      expect(await outcome(fromPod(clientIp(), SERVICE))).toBe("ECONNREFUSED");
      expect(await inbound.echo("in")).toBe("in");
      expect(await outbound.echo("out")).toBe("out");
      inbound.close();
      outbound.close();
    });

    test("connections older than enrolment go on in both directions, whoever speaks first", async () => {
      const calls: Call[] = [];
      for (let i = 0; i < 4; i++) calls.push(await fromClient(podIp(), APP), await fromPod(clientIp(), SERVICE));
      for (const call of calls) await call.greeting();
      await capture();
      for (const [i, call] of calls.entries()) expect(await call.echo(`older ${i}`)).toBe(`older ${i}`);
      // And when the far side, not the opener, sends the first packet that conntrack sees.
      for (const server of servers) for (const socket of server.sockets) socket.write("pushed\n");
      for (const call of calls) expect(await call.line()).toBe("pushed");
      expect(ztunnel.accepted).toEqual([]);
      for (const call of calls) call.close();
    });

    test("bypass-inbound leaves inbound alone and captures the rest", async () => {
      await capture({ bypassInbound: true });
      const call = await fromClient(podIp(), APP);
      const { name, remote } = await call.greeting();
      expect({ name, from: remote }).toEqual({ name: "app", from: call.own });
      call.close();
      expect(await outcome(fromPod(clientIp(), SERVICE))).toBe("remote");
      expect(ztunnel.accepted.map(({ port }) => port)).toEqual([15001]);
    });

    test("an excluded CIDR is left alone, its neighbour is not", async () => {
      const [excluded, neighbour] = family === 4 ? ["10.66.9.1", "10.66.8.1"] : ["fd66::9:1", "fd66::8:1"];
      lab.remote(family, excluded);
      lab.remote(family, neighbour);
      await capture({ excludeOutboundCidrs: ["10.66.9.0/24", "10.66.9.128/25", "fd66::9:0/112"] });
      expect(await outcome(fromPod(excluded, SERVICE))).toBe("remote");
      expect(ztunnel.accepted).toEqual([]);
      expect(await outcome(fromPod(neighbour, SERVICE))).toBe("remote");
      expect(ztunnel.via({ address: neighbour, port: SERVICE })).toEqual([15001]);
    });

    test("a guest behind the pod goes to 15001 if its interface is rerouted, else past ztunnel", async () => {
      using guest = createNetns();
      native().vethAdd(lab.pod.netns.fd, "vnet0", "eth0", guest.fd);
      const [gateway, own] = family === 4 ? ["10.77.0.1", "10.77.0.2"] : ["fd77::1", "fd77::2"];
      const prefix = family === 4 ? 24 : 64;
      native().linkUp(lab.pod.netns.fd, "vnet0");
      native().linkUp(guest.fd, "eth0");
      native().addressAdd(lab.pod.netns.fd, "vnet0", gateway, prefix);
      native().addressAdd(guest.fd, "eth0", own, prefix);
      await inNetns(guest, "ip", `-${family}`, "route", "add", "default", "via", gateway);
      await inNetns(
        lab.client.netns,
        "ip",
        `-${family}`,
        "route",
        "add",
        `${own}/${family === 4 ? 32 : 128}`,
        "via",
        podIp(),
      );
      native().sysctlSet(lab.pod.netns.fd, family === 4 ? "net/ipv4/ip_forward" : "net/ipv6/conf/all/forwarding", "1");
      const fromGuest = () => Call.open(guest, family, clientIp(), SERVICE);

      await capture();
      const past = await fromGuest();
      expect((await past.greeting()).remote).toEqual(past.own);
      expect(ztunnel.accepted).toEqual([]);

      await capture({ rerouteInterfaces: ["vnet0"] });
      expect(await past.echo("goes on")).toBe("goes on");
      const through = await fromGuest();
      expect((await through.greeting()).name).toBe("remote");
      expect(through.peer).toEqual({ address: clientIp(), port: SERVICE });
      expect(ztunnel.accepted).toEqual([
        { port: 15001, peer: through.own, original: { address: clientIp(), port: SERVICE } },
      ]);
      through.close();

      // Conntrack remembers for ten seconds that it was not to be turned.
      for (const socket of servers[1]?.sockets ?? []) socket.resetAndDestroy();
      await past.end().catch(() => undefined);
      const bind = { address: own, port: past.own.port };
      const again = Call.open(guest, family, clientIp(), SERVICE, { bind, reuseAddress: true });
      expect([await outcome(again), ztunnel.accepted.length]).toEqual(["ECONNREFUSED", 1]);
    });

    test("strict reverse path filtering, as many nodes hand it down to pods, is no obstacle", async () => {
      for (const ifname of ["all", "default", "lo", "eth0"]) {
        native().sysctlSet(lab.pod.netns.fd, `net/ipv4/conf/${ifname}/rp_filter`, "1");
      }
      await capture();
      expect(await outcome(fromClient(podIp(), APP))).toBe("app");
      expect(await outcome(fromPod(clientIp(), SERVICE))).toBe("remote");
      expect(ztunnel.accepted.map(({ port }) => port)).toEqual([15006, 15001]);
    });

    test("other UDP is untouched in both directions", async () => {
      await capture();
      const [here, there] = [lab.pod.netns, lab.client.netns];
      expect(await udpEcho(family, here, there, clientIp(), 5353)).toEqual({ address: clientIp(), port: 5353 });
      expect(await udpEcho(family, there, here, podIp(), 5353)).toEqual({ address: podIp(), port: 5353 });
      expect(ztunnel.questions).toEqual([]);
    });

    test("ICMP is untouched in both directions: a closed UDP port is reported", async () => {
      await capture();
      expect(await udpRefusal(family, lab.pod.netns, clientIp())).toBe("ECONNREFUSED");
      expect(await udpRefusal(family, lab.client.netns, podIp())).toBe("ECONNREFUSED");
    });
  });

  describe("where IPv6 and IPv4 meet", () => {
    beforeAll(async () => {
      dataplane = await startDataplane(native(), engine);
    });
    afterAll(() => dataplane.close());

    test("with ipv6 off in the settings IPv6 is left alone and IPv4 is captured", async () => {
      await capture({ ipv6: false });
      const call = await Call.open(lab.client.netns, 6, lab.pod.ipv6, APP);
      expect((await call.greeting()).remote).toEqual(call.own);
      call.close();
      expect(await outcome(Call.open(lab.pod.netns, 6, lab.client.ipv6, SERVICE))).toBe("remote");
      expect(ztunnel.accepted).toEqual([]);
      expect(await outcome(Call.open(lab.client.netns, 4, lab.pod.ipv4, APP))).toBe("app");
      expect(ztunnel.accepted).toHaveLength(1);
    });

    test("a netns with IPv6 disabled is captured for IPv4, without an error and without IPv6 routing", async () => {
      native().sysctlSet(lab.pod.netns.fd, "net/ipv6/conf/all/disable_ipv6", "1");
      native().sysctlSet(lab.pod.netns.fd, "net/ipv6/conf/lo/disable_ipv6", "1");
      await capture({ ips: [lab.pod.ipv4] });
      expect(await outcome(Call.open(lab.client.netns, 4, lab.pod.ipv4, APP))).toBe("app");
      expect(ztunnel.accepted).toHaveLength(1);
      expect(
        native()
          .rules(lab.pod.netns.fd, 6)
          .filter(({ fwmark }) => fwmark === LOCAL_MARK),
      ).toEqual([]);
    });

    test("a v4-mapped destination of an IPv6 socket is captured as IPv4", async () => {
      await capture();
      const call = await Call.open(lab.pod.netns, 6, `::ffff:${lab.client.ipv4}`, SERVICE);
      expect((await call.greeting()).name).toBe("remote");
      expect(ztunnel.via({ address: lab.client.ipv4, port: SERVICE })).toEqual([15001]);
      call.close();
    });
  });
});

/** Asks a one-shot UDP echo; returns who answered. */
async function udpEcho(
  family: 4 | 6,
  from: HeldNetns,
  at: HeldNetns,
  address: string,
  port: number,
): Promise<{ address: string; port: number }> {
  const type = family === 4 ? "udp4" : "udp6";
  const server = createSocket(type);
  const client = createSocket(type);
  try {
    server.on("message", (message, peer) => server.send(message, peer.port, peer.address));
    server.bind({ fd: native().udpSocket(at.fd, { family, bind: { address, port } }) });
    client.bind({ fd: native().udpSocket(from.fd, { family }) });
    return await new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error("no UDP answer")), 3000);
      client.on("message", (_, peer) => {
        clearTimeout(late);
        resolve({ address: peer.address, port: peer.port });
      });
      client.send("hello", port, address);
    });
  } finally {
    server.close();
    client.close();
  }
}

/** Sends to a UDP port where nothing listens; returns the error that ICMP brings back. */
async function udpRefusal(family: 4 | 6, from: HeldNetns, address: string): Promise<string> {
  const socket = createSocket(family === 4 ? "udp4" : "udp6");
  try {
    socket.bind({ fd: native().udpSocket(from.fd, { family }) });
    socket.connect(9999, address);
    await once(socket, "connect");
    const refused = once(socket, "error", { signal: AbortSignal.timeout(3000) });
    socket.send("hello");
    const [error] = await refused;
    return error.code;
  } finally {
    socket.close();
  }
}
