// SPDX-License-Identifier: Apache-2.0
// ztunnel's legs to the application don't get the ports of clients whose connections are older than the capture.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { NodeDataplane } from "../../../src/dataplane/dataplane.ts";
import { PodExistingConnections } from "../../../src/dataplane/existing.ts";
import type { NativeBinding } from "../../../src/native/binding.ts";
import { OwnedFd } from "../../../src/native/fd.ts";
import { native } from "../../../src/native/load.ts";
import { specOf, startDataplane, withoutSysctls } from "../../support/lab-dataplane.ts";
import { ENGINES } from "../../support/lab-engines.ts";
import { Call } from "../../support/lab-peer.ts";
import { expectAlive, TrafficLab } from "../../support/lab-traffic.ts";
import { ipOf, type NetnsLab } from "../../support/netns-lab.ts";

const APP = 8080;
const RESERVED = "net/ipv4/ip_local_reserved_ports";
const LIST = "537,539,541,50000-50039";

let dataplane: NodeDataplane;
let traffic: TrafficLab;
let lab: NetnsLab;

const CLOSE_WAIT = 8;
const states = () =>
  native()
    .sockets(lab.pod.netns.fd, { protocol: "tcp" })
    .map(({ state }) => state);
const reserved = () => native().sysctlGet(lab.pod.netns.fd, RESERVED);
/** By an agent that knows of nothing but what the kernel shows. */
function protect(binding: NativeBinding = native()): void {
  // Also of clients that are this node.
  new PodExistingConnections(binding, lab.client.netns).protect(lab.pod.netns);
}

async function clients(first: number, count: number, family: 4 | 6 = 4): Promise<readonly Call[]> {
  const calls: Call[] = [];
  for (let port = first; port < first + count; port++) {
    const bind = { address: ipOf(lab.client, family), port };
    calls.push(await Call.open(lab.client.netns, family, ipOf(lab.pod, family), APP, { bind }));
  }
  for (const call of calls) {
    const { name, remote } = await call.greeting();
    expect({ name, from: remote.address }).toEqual({ name: "app", from: ipOf(lab.client, family) });
  }
  return calls;
}

describe.each(ENGINES)("$name", (engine) => {
  beforeAll(async () => {
    dataplane = await startDataplane(native(), engine);
  });
  afterAll(() => dataplane.close());
  beforeEach(async () => {
    traffic = await TrafficLab.create();
    lab = traffic.lab;
    // Of these 61 ports the older connections have 40.
    native().sysctlSet(lab.pod.netns.fd, "net/ipv4/ip_local_port_range", "50000 50060");
  });
  afterEach(() => traffic.close());

  test.each([4, 6] as const)("IPv%i: old and new connections of one client live side by side", async (family) => {
    const old = await clients(50_000, 40, family);
    await dataplane.capture(lab.pod.netns, specOf(lab));
    protect();
    expect(reserved()).toBe(LIST);
    const since = await clients(51_000, 16, family);
    await expectAlive([...old, ...since]);
    expect(traffic.accepted).toBe(since.length);
    for (const call of old) call.close();
    await expect
      .poll(() => {
        protect();
        return reserved();
      })
      .toBe("");
    await expectAlive(since);
    await dataplane.release(lab.pod.netns);
  });

  test("what is released, or becomes istio-cni's, keeps none", async () => {
    const old = await clients(50_000, 40);
    await dataplane.capture(lab.pod.netns, specOf(lab));
    protect();
    await dataplane.release(lab.pod.netns);
    expect(reserved()).toBe("");
    await dataplane.capture(lab.pod.netns, specOf(lab));
    protect();
    expect(reserved()).toBe(LIST);
    // With it our engine has to stay, where it is what brings its answers back.
    const [proxied] = await clients(51_000, 1);
    await dataplane.handOver(lab.pod.netns, specOf(lab));
    expect(reserved()).toBe("");
    await expectAlive([...old, ...(proxied === undefined ? [] : [proxied])]);
    await dataplane.release(lab.pod.netns);
  });

  test("a client that has closed its direction is still connected", async () => {
    // An application that goes on writing: nobody closes its end.
    const bind = { address: "::", port: APP + 1 };
    using _application = OwnedFd.adopt(native().tcpListen(lab.pod.netns.fd, { family: 6, bind }), "listener");
    const from = { address: lab.client.ipv4, port: 50_000 };
    const half = await Call.open(lab.client.netns, 4, lab.pod.ipv4, bind.port, { bind: from });
    half.socket.end();
    await expect.poll(states).toContain(CLOSE_WAIT);
    await dataplane.capture(lab.pod.netns, specOf(lab));
    protect();
    expect(reserved()).toBe("537,539,541,50000");
    await dataplane.release(lab.pod.netns);
  });

  test.each(["15001,50055", "500-40000", "1024-30000", "500-600,50000"])(
    "the pod's own list %s stays",
    async (list) => {
      await clients(50_000, 40);
      native().sysctlSet(lab.pod.netns.fd, RESERVED, list);
      await dataplane.capture(lab.pod.netns, specOf(lab));
      protect();
      expect(reserved()).toBe(list);
      await dataplane.release(lab.pod.netns);
      expect(reserved()).toBe(list);
    },
  );

  test("where sysctls are denied there is none", async () => {
    await clients(50_000, 40);
    await dataplane.capture(lab.pod.netns, specOf(lab));
    protect(withoutSysctls);
    expect(reserved()).toBe("");
    await dataplane.release(lab.pod.netns);
  });
});
