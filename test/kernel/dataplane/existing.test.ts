// SPDX-License-Identifier: Apache-2.0
// Connections older than the capture: counted, and reset only on request and only they.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, onTestFinished, test } from "vitest";
import type { NodeDataplane } from "../../../src/dataplane/dataplane.ts";
import { PodExistingConnections } from "../../../src/dataplane/existing.ts";
import { proxiedSockets } from "../../../src/dataplane/proxied.ts";
import { NativeError } from "../../../src/native/fault.ts";
import { native } from "../../../src/native/load.ts";
import { createNetns, type HeldNetns } from "../../../src/native/netns.ts";
import { specOf, startDataplane } from "../../support/lab-dataplane.ts";
import { ENGINES } from "../../support/lab-engines.ts";
import { Call, EchoServer } from "../../support/lab-peer.ts";
import { expectAlive, TrafficLab } from "../../support/lab-traffic.ts";
import { ipOf } from "../../support/netns-lab.ts";

let dataplane: NodeDataplane;
let traffic: TrafficLab;
let host: HeldNetns;
let existing: PodExistingConnections;

/** Of a kernel without nf_conntrack_netlink. */
function untellingConntrack(): never {
  throw new NativeError("no such subsystem", "EINVAL", -22, "netlink");
}

describe.each(ENGINES)("$name", (engine) => {
  beforeAll(async () => {
    dataplane = await startDataplane(native(), engine);
  });
  afterAll(() => dataplane.close());
  beforeEach(async () => {
    traffic = await TrafficLab.create();
    host = createNetns();
    existing = new PodExistingConnections(native(), host);
  });
  afterEach(async () => {
    await traffic.close();
    host.close();
  });

  test("those from before are counted and reset, those through ztunnel live on", async () => {
    const { pod, client } = traffic.lab;
    const spec = specOf(traffic.lab);
    const old = await traffic.openAll(2);
    const inside = await Call.open(pod.netns, 4, "127.0.0.1", 8080);
    await inside.greeting();
    const toItself = await Call.open(pod.netns, 4, pod.ipv4, 8080);
    await toItself.greeting();
    await dataplane.capture(pod.netns, spec);
    const since = await traffic.openAll(2);
    expect(existing.count(pod.netns, spec)).toBe(8);
    await expectAlive(old);

    old[0]?.close();
    await expect.poll(() => existing.count(pod.netns, spec)).toBe(7);
    expect(existing.reset(pod.netns, spec)).toBe(7);
    for (const call of old.slice(1)) await expect(call.echo("x")).rejects.toThrow(/ECONNRESET|ECONNABORTED|EPIPE/);
    await expectAlive([...since, inside, toItself]);
    expect(existing.count(pod.netns, spec)).toBe(0);
    expect(existing.reset(pod.netns, spec)).toBe(0);
    // The remote's ends have gone as well.
    expect(
      native()
        .sockets(client.netns.fd, { protocol: "tcp", states: [1] })
        .filter(({ srcPort, dstPort }) => srcPort === 80 || dstPort === 8080).length,
    ).toBe(since.length);
    await dataplane.release(pod.netns);
  });

  test.each([4, 6] as const)("IPv%i: one source port leads to several destinations, old and new", async (family) => {
    const { pod, client } = traffic.lab;
    const spec = specOf(traffic.lab);
    const other = await EchoServer.start(client.netns, "other", { family: 6, bind: { address: "::", port: 81 } });
    onTestFinished(() => other.close());
    const from = async (port: number, to: number) => {
      const bind = { address: ipOf(pod, family), port };
      const call = await Call.open(pod.netns, family, ipOf(client, family), to, { bind, reuseAddress: true });
      expect((await call.greeting()).remote.address).toBe(bind.address);
      return call;
    };
    const old = await from(41000, 81);
    await dataplane.capture(pod.netns, spec);
    // Conntrack takes who speaks first for who called.
    for (const socket of other.sockets) socket.write("first\n");
    expect(await old.line()).toBe("first");
    // Netfilter gives the second of one port another one towards ztunnel.
    const first = await from(41001, 81);
    const since = [await from(41000, 80), await from(41001, 80)];
    expect(existing.count(pod.netns, spec)).toBe(1);
    first.close();
    await expect.poll(() => proxiedSockets(native(), pod.netns.fd).length).toBe(since.length);
    expect(existing.count(pod.netns, spec)).toBe(1);
    await expectAlive([old, ...since]);
    const untold = new PodExistingConnections({ ...native(), conntrackReplies: untellingConntrack }, host);
    expect(untold.count(pod.netns, spec)).toBe(engine.engine === "ebpf" ? 1 : 0);
    expect(existing.reset(pod.netns, spec)).toBe(1);
    await expect(old.echo("x")).rejects.toThrow(/ECONNRESET|ECONNABORTED|EPIPE/);
    await expectAlive(since);
    expect(existing.count(pod.netns, spec)).toBe(0);
    await dataplane.release(pod.netns);
  });

  test("what would not be captured does not count: a probing node, an excluded network, inbound of an ingress", async () => {
    const { pod, client } = traffic.lab;
    const spec = specOf(traffic.lab, { excludeOutboundCidrs: ["10.66.0.0/24"], bypassInbound: true });
    const calls = await traffic.openAll();
    await dataplane.capture(pod.netns, spec);
    // Left: the outbound one of the family that is not excluded.
    expect(existing.count(pod.netns, spec)).toBe(1);
    expect(existing.count(pod.netns, { ...spec, ipv6: false })).toBe(0);
    const node = new PodExistingConnections(native(), client.netns);
    expect(node.count(pod.netns, { ...spec, bypassInbound: false })).toBe(1);
    expect(existing.count(pod.netns, { ...spec, bypassInbound: false })).toBe(3);
    await expectAlive(calls);
    await dataplane.release(pod.netns);
  });

  test("under load nothing that goes through ztunnel is ever taken for an old one", async () => {
    const { pod } = traffic.lab;
    const spec = specOf(traffic.lab);
    await dataplane.capture(pod.netns, spec);
    const load = traffic.load();
    await load.more(20);
    for (let look = 0; look < 200; look++) {
      expect(existing.reset(pod.netns, spec)).toBe(0);
      if (look % 10 === 0) await load.more(4);
    }
    const { failures, uncaptured } = await load.end();
    expect(failures).toEqual([]);
    expect(uncaptured).toBe(0);
    await dataplane.release(pod.netns);
  });
});
