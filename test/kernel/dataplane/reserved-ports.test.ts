// SPDX-License-Identifier: Apache-2.0
// ztunnel's legs to the application don't get the ports of clients whose connections are older than the capture.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { NodeDataplane } from "../../../src/dataplane/dataplane.ts";
import { PodExistingConnections } from "../../../src/dataplane/existing.ts";
import type { NativeBinding } from "../../../src/native/binding.ts";
import { native } from "../../../src/native/load.ts";
import { createNetns, type HeldNetns } from "../../../src/native/netns.ts";
import { specOf, startDataplane, withoutSysctls } from "../../support/lab-dataplane.ts";
import { ENGINES } from "../../support/lab-engines.ts";
import { Call, EchoServer } from "../../support/lab-peer.ts";
import { expectAlive } from "../../support/lab-traffic.ts";
import { LabZtunnel } from "../../support/lab-ztunnel.ts";
import { ipOf, NetnsLab } from "../../support/netns-lab.ts";

const APP = 8080;
const RESERVED = "net/ipv4/ip_local_reserved_ports";
const LIST = "1337,15001,15006,15008,15053,50000-50039";

let dataplane: NodeDataplane;
let lab: NetnsLab;
let app: EchoServer;
let ztunnel: LabZtunnel;
let host: HeldNetns;

const reserved = () => native().sysctlGet(lab.pod.netns.fd, RESERVED);
const protect = (binding: NativeBinding = native()) =>
  new PodExistingConnections(binding, host).protect(lab.pod.netns, specOf(lab));

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
    lab = NetnsLab.create();
    host = createNetns();
    app = await EchoServer.start(lab.pod.netns, "app", { family: 6, bind: { address: "::", port: APP } });
    ztunnel = await LabZtunnel.start(lab.pod.netns);
    // Of these 61 ports the older connections have 40.
    native().sysctlSet(lab.pod.netns.fd, "net/ipv4/ip_local_port_range", "50000 50060");
  });
  afterEach(async () => {
    await app.close();
    await ztunnel.close();
    host.close();
    lab.close();
  });

  test.each([4, 6] as const)("IPv%i: old and new connections of one client live side by side", async (family) => {
    const old = await clients(50_000, 40, family);
    await dataplane.capture(lab.pod.netns, specOf(lab));
    expect(protect()).toBe(40);
    expect(reserved()).toBe(LIST);
    const since = await clients(51_000, 16, family);
    await expectAlive([...old, ...since]);
    expect(ztunnel.accepted).toHaveLength(since.length);
    for (const call of old) call.close();
    await expect.poll(() => protect()).toBe(0);
    expect(reserved()).toBe("");
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
    await dataplane.handOver(lab.pod.netns, specOf(lab));
    expect(reserved()).toBe("");
    await expectAlive(old);
    await dataplane.release(lab.pod.netns);
  });

  test("a list that the pod has of its own stays, and where sysctls are denied there is none", async () => {
    await clients(50_000, 40);
    await dataplane.capture(lab.pod.netns, specOf(lab));
    expect(protect(withoutSysctls)).toBe(40);
    expect(reserved()).toBe("");
    native().sysctlSet(lab.pod.netns.fd, RESERVED, "15001,50055");
    expect(protect()).toBe(40);
    await dataplane.release(lab.pod.netns);
    expect(reserved()).toBe("15001,50055");
  });
});
