// SPDX-License-Identifier: Apache-2.0
// Connections older than the capture: counted, and reset only on request and only they.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { NodeDataplane } from "../../../src/dataplane/dataplane.ts";
import { PodExistingConnections } from "../../../src/dataplane/existing.ts";
import { native } from "../../../src/native/load.ts";
import { createNetns, type HeldNetns } from "../../../src/native/netns.ts";
import { specOf, startDataplane } from "../../support/lab-dataplane.ts";
import { ENGINES } from "../../support/lab-engines.ts";
import { Call } from "../../support/lab-peer.ts";
import { expectAlive, TrafficLab } from "../../support/lab-traffic.ts";

let dataplane: NodeDataplane;
let traffic: TrafficLab;
let host: HeldNetns;
let existing: PodExistingConnections;

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
