// SPDX-License-Identifier: Apache-2.0
// Capture, observe, repair, drain and release, seen from the kernel and from open connections.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { NodeDataplane } from "../../../src/dataplane/dataplane.ts";
import type { NativeBinding } from "../../../src/native/binding.ts";
import { NativeError } from "../../../src/native/fault.ts";
import { OwnedFd } from "../../../src/native/fd.ts";
import { native } from "../../../src/native/load.ts";
import { forkCount } from "../../../src/sys/exec.ts";
import { specOf, startDataplane, stateOf } from "../../support/lab-dataplane.ts";
import { ENGINES } from "../../support/lab-engines.ts";
import { Call, EchoServer, outcome } from "../../support/lab-peer.ts";
import { TrafficLab } from "../../support/lab-traffic.ts";
import { LabZtunnel } from "../../support/lab-ztunnel.ts";
import { inNetns, ipOf, NetnsLab } from "../../support/netns-lab.ts";

const APP = 8080;
const SERVICE = 80;

let dataplane: NodeDataplane;
let lab: NetnsLab;
let ztunnel: LabZtunnel;
const servers: EchoServer[] = [];

/** The netns whose routes the kernel refuses to take. */
let routesDeniedIn: number | undefined;

const binding: NativeBinding = {
  ...native(),
  routeReplace: (netns, route) => {
    if (netns === routesDeniedIn)
      throw new NativeError("replace route: no buffer space (ENOBUFS)", "ENOBUFS", -105, "netlink");
    native().routeReplace(netns, route);
  },
};

describe.each(ENGINES)("$name", (engine) => {
  beforeAll(async () => {
    dataplane = await startDataplane(binding, engine);
  });
  afterAll(() => dataplane.close());

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
    routesDeniedIn = undefined;
  });

  /** One proxied connection per direction and family. */
  async function openAll(): Promise<Call[]> {
    const calls: Call[] = [];
    for (const family of [4, 6] as const) {
      calls.push(await Call.open(lab.client.netns, family, ipOf(lab.pod, family), APP));
      calls.push(await Call.open(lab.pod.netns, family, ipOf(lab.client, family), SERVICE));
    }
    for (const call of calls) await call.greeting();
    return calls;
  }

  async function expectAlive(calls: readonly Call[], word: string): Promise<void> {
    for (const [i, call] of calls.entries()) expect(await call.echo(`${word} ${i}`)).toBe(`${word} ${i}`);
  }

  test("lo is still down, as in an ADD whose loopback plugin runs beside ours: captured all the same", async () => {
    await inNetns(lab.pod.netns, "ip", "link", "set", "lo", "down");
    const spec = specOf(lab);
    await dataplane.prepare(lab.pod.netns, spec);
    await dataplane.capture(lab.pod.netns, spec);
    expect(dataplane.observe(lab.pod.netns, spec).mode).toBe("captured");
    for (const call of await openAll()) call.close();
  });

  test("a pod with traffic is captured, drained and released without refusing a connection", async () => {
    const traffic = await TrafficLab.create();
    try {
      const { pod } = traffic.lab;
      const spec = specOf(traffic.lab);
      const load = traffic.load();
      for (let round = 0; round < 3; round++) {
        await load.more(20);
        await dataplane.capture(pod.netns, spec);
        await load.more(20);
        await dataplane.drain(pod.netns, spec);
        await expect.poll(() => dataplane.proxiedConnections(pod.netns)).toBe(0);
        await dataplane.release(pod.netns);
      }
      expect((await load.end()).failures).toEqual([]);
      expect(traffic.accepted).toBeGreaterThan(0);
    } finally {
      await traffic.close();
    }
  });

  test("a pod is absent, then captured, and an unchanged one costs no fork", async () => {
    const spec = specOf(lab);
    expect(dataplane.observe(lab.pod.netns, spec).mode).toBe("absent");
    expect(dataplane.present(lab.pod.netns)).toBe(false);
    expect(await dataplane.capture(lab.pod.netns, spec)).toBe(engine.engine);
    expect(dataplane.present(lab.pod.netns)).toBe(true);
    const forks = forkCount();
    expect(dataplane.observe(lab.pod.netns, spec)).toEqual({
      mode: "captured",
      engine: engine.engine,
      differences: [],
    });
    expect(await dataplane.capture(lab.pod.netns, { ...spec })).toBe(engine.engine);
    expect(forkCount()).toBe(forks);
  });

  test("prepare alone steers nothing, is no capture, and is undone by release", async () => {
    const before = await stateOf(lab.pod.netns);
    await dataplane.prepare(lab.pod.netns, specOf(lab));
    expect(dataplane.observe(lab.pod.netns, specOf(lab)).mode).toBe("absent");
    expect(dataplane.present(lab.pod.netns)).toBe(true);
    expect(await outcome(Call.open(lab.client.netns, 4, lab.pod.ipv4, APP))).toBe("app");
    expect(ztunnel.accepted).toEqual([]);
    await dataplane.release(lab.pod.netns);
    expect(await stateOf(lab.pod.netns)).toBe(before);
  });

  test("release leaves the netns as it was, and twice is once", async () => {
    const before = await stateOf(lab.pod.netns);
    await dataplane.capture(lab.pod.netns, specOf(lab));
    expect(await stateOf(lab.pod.netns)).not.toBe(before);
    await dataplane.release(lab.pod.netns);
    expect(await stateOf(lab.pod.netns)).toBe(before);
    await dataplane.release(lab.pod.netns);
    expect(await stateOf(lab.pod.netns)).toBe(before);
    expect(dataplane.present(lab.pod.netns)).toBe(false);
  });

  test("release by another agent puts back only the sysctls that capture changed", async () => {
    native().sysctlSet(lab.pod.netns.fd, "net/ipv4/fwmark_reflect", "1");
    const before = await stateOf(lab.pod.netns);
    await dataplane.capture(lab.pod.netns, specOf(lab));
    const successor = await startDataplane(native(), engine);
    await successor.release(lab.pod.netns);
    successor.close();
    expect(await stateOf(lab.pod.netns)).toBe(before);
  });

  test("other tables, rules and sysctls of the pod are never touched", async () => {
    await inNetns(
      lab.pod.netns,
      "sh",
      "-c",
      "nft add table ip mine; nft add chain ip mine out '{ type nat hook output priority -100; }'; ip rule add fwmark 7 lookup 70 pref 99; ip route add blackhole default table 70",
    );
    const before = await stateOf(lab.pod.netns);
    await dataplane.capture(lab.pod.netns, specOf(lab));
    await dataplane.drain(lab.pod.netns, specOf(lab));
    await dataplane.release(lab.pod.netns);
    expect(await stateOf(lab.pod.netns)).toBe(before);
  });

  describe("what is changed behind our back is named and repaired without a gap for open connections", () => {
    const early = ["echo 1 > /proc/sys/net/ipv4/ip_early_demux", "net/ipv4/ip_early_demux is 1, not 0"] as const;
    test.each<readonly [command: string, sentence: string]>([
      ["ip rule del pref 32764", "IPv4 policy rule 32764 (fwmark 0x111/0xfff lookup 100) is missing"],
      ["ip -6 rule del pref 32764", "IPv6 policy rule 32764 (fwmark 0x111/0xfff lookup 100) is missing"],
      ["ip route flush table 100", "IPv4 route local default dev lo table 100 is missing"],
      ["ip -6 route flush table 100", "IPv6 route local default dev lo table 100 is missing"],
      ["echo 0 > /proc/sys/net/ipv4/tcp_fwmark_accept", "net/ipv4/tcp_fwmark_accept is 0, not 1"],
      ...(engine.engine === "ebpf" ? [] : [early]),
    ])("%s", async (command, sentence) => {
      await dataplane.capture(lab.pod.netns, specOf(lab));
      await inNetns(lab.pod.netns, "sh", "-c", command);
      const seen = dataplane.observe(lab.pod.netns, specOf(lab));
      expect(seen.mode).toBe("differs");
      expect(seen.differences).toContain(sentence);
      await dataplane.capture(lab.pod.netns, specOf(lab));
      expect(dataplane.observe(lab.pod.netns, specOf(lab)).mode).toBe("captured");
      for (const call of await openAll()) call.close();
      expect(ztunnel.accepted).toHaveLength(4);
    });
  });

  test("a change of the pod's settings is seen and applied; connections go on", async () => {
    await dataplane.capture(lab.pod.netns, specOf(lab));
    const calls = await openAll();
    const bypassed = specOf(lab, { bypassInbound: true, dnsCapture: false });
    expect(dataplane.observe(lab.pod.netns, bypassed).differences).toEqual([
      expect.stringMatching(
        /^the (table was|rules were|pod's entry was) made for other settings of the pod, or by another version$/,
      ),
    ]);
    await dataplane.capture(lab.pod.netns, bypassed);
    expect(dataplane.observe(lab.pod.netns, bypassed).mode).toBe("captured");
    await expectAlive(calls, "changed");
    for (const call of calls) call.close();
  });

  test("applied again and again under traffic nothing is lost, reset, or let past", async () => {
    const specs = [specOf(lab), specOf(lab, { excludeOutboundCidrs: ["192.0.2.0/24"] })];
    const [first = specOf(lab)] = specs;
    await dataplane.capture(lab.pod.netns, first);
    const lasting = await openAll();
    let rounds = 0;
    let done = false;
    let opened = 0;
    const traffic = (async () => {
      while (!done) {
        for (const family of [4, 6] as const) {
          const inbound = await Call.open(lab.client.netns, family, ipOf(lab.pod, family), APP);
          const outbound = await Call.open(lab.pod.netns, family, ipOf(lab.client, family), SERVICE);
          for (const call of [inbound, outbound]) {
            expect(await call.greeting().then(({ name }) => name)).toMatch(/app|remote/);
            call.close();
          }
          opened += 2;
        }
        await expectAlive(lasting, `round ${rounds}`);
      }
    })();
    for (; rounds < 40 || opened <= 20; rounds++) {
      const spec = specs[rounds % 2] ?? first;
      await dataplane.capture(lab.pod.netns, spec);
    }
    done = true;
    await traffic;
    // Every single one was seen by ztunnel: there was no moment without the rules.
    expect(ztunnel.accepted).toHaveLength(opened + lasting.length);
    await expectAlive(lasting, "after");
    for (const call of lasting) call.close();
  });

  test("a connection that ztunnel is yet to accept is waited for, one that it has closed is not", async () => {
    await ztunnel.close();
    const { netns, ipv4 } = lab.pod;
    const bind = { address: ipv4, port: 15001 };
    const listener = OwnedFd.adopt(native().tcpListen(netns.fd, { family: 4, mark: 0x539, bind }), "listener");
    const call = await Call.open(lab.client.netns, 4, ipv4, 15001);
    expect(dataplane.proxiedConnections(netns)).toBe(1);
    const accepted = native().tcpAccept(listener.fd);
    expect(dataplane.proxiedConnections(netns)).toBe(1);
    native().close(accepted);
    expect(dataplane.proxiedConnections(netns)).toBe(0);
    call.close();
    listener.close();
  });

  test("draining: proxied connections go on and are counted, new ones are direct", async () => {
    const spec = specOf(lab);
    await dataplane.capture(lab.pod.netns, spec);
    expect(dataplane.proxiedConnections(lab.pod.netns)).toBe(0);
    const calls = await openAll();
    const seen = ztunnel.accepted.length;
    expect(dataplane.proxiedConnections(lab.pod.netns)).toBe(4);
    await dataplane.drain(lab.pod.netns, spec);
    expect(dataplane.observe(lab.pod.netns, spec)).toEqual({
      mode: "draining",
      engine: engine.engine,
      differences: [],
    });
    await expectAlive(calls, "draining");
    for (const call of await openAll()) call.close();
    expect(ztunnel.accepted).toHaveLength(seen);
    await expectAlive(calls, "still");
    expect(dataplane.proxiedConnections(lab.pod.netns)).toBe(4);
    for (const call of calls) call.close();
    await expect.poll(() => dataplane.proxiedConnections(lab.pod.netns)).toBe(0);
  });

  test("draining is taken back by capture", async () => {
    await dataplane.capture(lab.pod.netns, specOf(lab));
    const calls = await openAll();
    await dataplane.drain(lab.pod.netns, specOf(lab));
    await dataplane.capture(lab.pod.netns, specOf(lab));
    await expectAlive(calls, "back");
    const seen = ztunnel.accepted.length;
    for (const call of await openAll()) call.close();
    expect(ztunnel.accepted).toHaveLength(seen + 4);
    for (const call of calls) call.close();
  });

  test("draining a pod that is not captured does nothing", async () => {
    const before = await stateOf(lab.pod.netns);
    await dataplane.drain(lab.pod.netns, specOf(lab));
    expect(await stateOf(lab.pod.netns)).toBe(before);
  });

  test("a pod whose addresses are on no interface (gVisor) is refused, and left as it was", async () => {
    const before = await stateOf(lab.pod.netns);
    const spec = specOf(lab, { ips: ["10.66.0.99"] });
    await expect(dataplane.capture(lab.pod.netns, spec)).rejects.toMatchObject({
      code: "POD_NOT_CAPTURABLE",
      message: expect.stringContaining("10.66.0.99"),
    });
    expect(await stateOf(lab.pod.netns)).toBe(before);
  });

  test("a pod whose own firewall eats traffic on lo is not said to be captured", async () => {
    await inNetns(
      lab.pod.netns,
      "sh",
      "-c",
      "nft add table ip fw; nft add chain ip fw in '{ type filter hook input priority 0; }'; nft add rule ip fw in iif lo drop",
    );
    const before = await stateOf(lab.pod.netns);
    await expect(dataplane.capture(lab.pod.netns, specOf(lab))).rejects.toMatchObject({ code: "VERIFY_FAILED" });
    expect(await stateOf(lab.pod.netns)).toBe(before);
  });

  test("values that could become rule text are refused, whatever they are", async () => {
    const before = await stateOf(lab.pod.netns);
    const names = [
      "",
      ".",
      "..",
      "a b",
      'x"',
      "eth0;",
      "a\nb",
      "*",
      "eth*",
      "$(x)",
      "{",
      "lo}",
      "abcdefghijklmnop",
      "é",
    ];
    for (const name of names) {
      await expect(dataplane.capture(lab.pod.netns, specOf(lab, { rerouteInterfaces: [name] }))).rejects.toMatchObject({
        code: "BAD_INTERFACE_NAME",
        message: expect.stringContaining(JSON.stringify(name)),
      });
    }
    const evil = "10.0.0.0/8 } accept; add rule inet x y {";
    for (const changes of [
      { excludeOutboundCidrs: [evil] },
      { dnsServers: [evil] },
      { dnsServers: ["10.0.0.1/8"] },
      { probeIpv4: evil },
      { probeIpv6: "10.0.0.1" },
    ]) {
      await expect(dataplane.capture(lab.pod.netns, specOf(lab, changes))).rejects.toMatchObject({
        code: "BAD_ADDRESS",
      });
    }
    expect(await stateOf(lab.pod.netns)).toBe(before);
  });

  test("fifty pods at once", async () => {
    const labs = Array.from({ length: 50 }, () => NetnsLab.create());
    try {
      await Promise.all(labs.map((one) => dataplane.capture(one.pod.netns, specOf(one))));
      for (const one of labs) expect(dataplane.observe(one.pod.netns, specOf(one)).mode).toBe("captured");
      await Promise.all(labs.map((one) => dataplane.release(one.pod.netns)));
      for (const one of labs) expect(dataplane.present(one.pod.netns)).toBe(false);
    } finally {
      for (const one of labs) one.close();
    }
  });

  test("a repair that cannot be completed leaves the pod steered, a first capture leaves it alone", async () => {
    // Without a local route there is no way to the listeners.
    routesDeniedIn = lab.pod.netns.fd;
    await expect(dataplane.capture(lab.pod.netns, specOf(lab))).rejects.toThrow();
    expect(dataplane.observe(lab.pod.netns, specOf(lab)).mode).toBe("absent");
    await expect(dataplane.capture(lab.pod.netns, specOf(lab), true)).rejects.toThrow();
    expect(dataplane.observe(lab.pod.netns, specOf(lab)).mode).toBe("differs");
    routesDeniedIn = undefined;
    expect(await dataplane.capture(lab.pod.netns, specOf(lab), true)).toBe(engine.engine);
  });
});
