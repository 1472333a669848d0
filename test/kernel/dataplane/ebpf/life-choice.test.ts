// SPDX-License-Identifier: Apache-2.0
// Which engine a pod gets, why, and that it can change with connections open.

import { rmdirSync } from "node:fs";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { CaptureSpec } from "../../../../src/core/ports/dataplane.ts";
import { native } from "../../../../src/native/load.ts";
import { freshBpffs, LabCgroups, makeCgroup } from "../../../support/lab-bpf.ts";
import { ChoiceLab, type ChoiceOptions } from "../../../support/lab-choice.ts";
import { specOf, stateOf } from "../../../support/lab-dataplane.ts";
import type { Call } from "../../../support/lab-peer.ts";
import { expectAlive, TrafficLab, WAYS } from "../../../support/lab-traffic.ts";
import { inNetns } from "../../../support/netns-lab.ts";

let traffic: TrafficLab;
let spec: CaptureSpec;
let bpffs: string;
const started: ChoiceLab[] = [];
const opened: Call[] = [];

async function start(options: Partial<ChoiceOptions> = {}): Promise<ChoiceLab> {
  const lab = await ChoiceLab.start({ bpffs: { path: bpffs }, ...options });
  started.push(lab);
  return lab;
}

beforeEach(async () => {
  bpffs = freshBpffs();
  traffic = await TrafficLab.create();
  spec = specOf(traffic.lab);
});
afterEach(async () => {
  for (const call of opened.splice(0)) call.close();
  for (const { dataplane } of started.splice(0)) dataplane.close();
  native().bpfRemove(bpffs);
  await traffic.close();
});

const pod = () => traffic.lab.pod.netns;
const inPod = (command: string) => inNetns(pod(), "sh", "-c", command);
const filters = () =>
  inPod("for dev in eth0 lo; do tc qdisc show dev $dev | grep clsact; tc filter show dev $dev ingress; done; true");

async function openAll(each = 1): Promise<Call[]> {
  const calls = await traffic.openAll(each);
  opened.push(...calls);
  return calls;
}

/** New connections of every way go through ztunnel, at addresses of this engine's. */
async function expectCapturedBy(engine: "ebpf" | "nftables"): Promise<Call[]> {
  const seen = traffic.ztunnel.accepted.length;
  const open = () => native().sockets(pod().fd, { protocol: "tcp", states: [1] });
  const older = new Set(open().map(({ cookie }) => cookie));
  const calls = await openAll();
  expect(traffic.ztunnel.accepted).toHaveLength(seen + WAYS.length);
  // netfilter leaves ztunnel's end at the pod's address, eBPF puts it at one of its own.
  const ends = open()
    .filter(({ mark, cookie }) => mark === 0x539 && !older.has(cookie))
    .map(({ src }) => src.replace("::ffff:", ""));
  const ours = ends.filter((address) => /^255\.|^fd16:9254:7127:[12]:/.test(address));
  // ztunnel's calls are sockets with the mark as well.
  expect(ours).toHaveLength(engine === "ebpf" ? WAYS.length : 0);
  return calls;
}

describe("a pod that ebpf can't capture is an nftables pod, and the reason is told once", () => {
  test.each([
    [
      "a second interface",
      "ip link add dummy7 type veth peer name dummy8; ip link set dummy7 up; ip link set dummy8 up",
      {},
      "it has 3 interfaces",
    ],
    ["a second address", "ip address add 10.66.7.7/32 dev eth0", {}, "its address 10.66.7.7 is none of status.podIPs"],
    ["rerouted interfaces", "true", { rerouteInterfaces: ["net1"] }, "its interfaces net1 are to be rerouted"],
  ] as const)("%s", async (_name, command, changes, reason) => {
    const { dataplane, ...lab } = await start();
    const choice = started[0];
    await inPod(command);
    const asked = { ...spec, ...changes };
    expect(await dataplane.capture(pod(), asked)).toBe("nftables");
    expect(await dataplane.capture(pod(), asked)).toBe("nftables");
    expect(dataplane.observe(pod(), asked)).toEqual({ mode: "captured", engine: "nftables", differences: [] });
    expect(choice?.reasons).toEqual([expect.stringContaining(reason)]);
    expect(choice?.fallbacks).toEqual({
      'ambient_cni_engine_fallbacks_total{"from":"ebpf","to":"nftables","kind":"ineligible"}': 1,
    });
    await expectCapturedBy("nftables");
    // Nothing of ebpf is in the netns, nor in its maps.
    expect(await filters()).toBe("");
    expect(lab.ebpf.node.bpf.podCookies()).toEqual([]);
  });
});

describe("what appears after enrolment moves the pod to nftables, and back when it goes", () => {
  test.each([
    ["an address", "ip address add 10.66.7.7/32 dev eth0", "ip address del 10.66.7.7/32 dev eth0"],
    [
      "a bridge",
      "ip link add docker0 type bridge; ip address add 172.17.0.1/16 dev docker0; ip link set docker0 up",
      "ip link del docker0",
    ],
    [
      "a second veth",
      "ip link add net1 type veth peer name net2; ip link set net1 up; ip link set net2 up",
      "ip link del net1",
    ],
  ])("%s", async (_name, comes, goes) => {
    const { dataplane } = await start();
    expect(await dataplane.capture(pod(), spec)).toBe("ebpf");
    const first = await openAll(2);
    await inPod(comes);
    const seen = dataplane.observe(pod(), spec);
    expect(seen.mode).toBe("differs");
    expect(seen.differences.join()).toContain("the engine is ebpf, not nftables");
    expect(await dataplane.capture(pod(), spec)).toBe("nftables");
    expect(dataplane.observe(pod(), spec)).toEqual({ mode: "captured", engine: "nftables", differences: [] });
    await expectAlive(first);
    const second = await expectCapturedBy("nftables");
    await inPod(goes);
    expect(dataplane.observe(pod(), spec).differences).toContain("the engine is nftables, not ebpf");
    expect(await dataplane.capture(pod(), spec)).toBe("ebpf");
    await expectAlive([...first, ...second]);
    await expectCapturedBy("ebpf");
    await expectAlive([...first, ...second]);
  });
});

test("a pod in which only ebpf's verification fails is an nftables pod, and nothing of ebpf stays", async () => {
  const elsewhere = makeCgroup("elsewhere");
  try {
    const lab = await start({ cgroups: new LabCgroups(elsewhere) });
    expect(lab.dataplane.engine).toBe("ebpf");
    // From here on this process is outside the hooked cgroup, and so are its verification connections.
    lab.ebpf.node.hooks.close();
    const before = await stateOf(pod());
    await lab.dataplane.prepare(pod(), spec);
    expect(await lab.dataplane.capture(pod(), spec)).toBe("nftables");
    expect(lab.reasons).toEqual([expect.stringContaining("was not led to ztunnel's address")]);
    expect(lab.fallbacks).toEqual({
      'ambient_cni_engine_fallbacks_total{"from":"ebpf","to":"nftables","kind":"failed"}': 1,
    });
    expect(await filters()).toBe("");
    expect(lab.ebpf.node.bpf.podCookies()).toEqual([]);
    await expectCapturedBy("nftables");
    // Not tried again at every look, and with all that nftables needs though it was prepared for ebpf.
    expect(lab.dataplane.observe(pod(), spec).mode).toBe("captured");
    expect(native().sysctlGet(pod().fd, "net/ipv4/ip_early_demux").trim()).toBe("0");
    await lab.dataplane.release(pod());
    expect(await stateOf(pod())).toBe(before);
  } finally {
    native().bpfRemove(bpffs);
    rmdirSync(elsewhere.path);
  }
});

test("the pod's own choice of engine wins, and can be taken back", async () => {
  const { dataplane } = await start();
  const chosen: CaptureSpec = { ...spec, engine: "nftables" };
  expect(await dataplane.capture(pod(), chosen)).toBe("nftables");
  expect(dataplane.observe(pod(), chosen).mode).toBe("captured");
  expect(dataplane.observe(pod(), spec).differences).toContain("the engine is nftables, not ebpf");
  expect(await dataplane.capture(pod(), spec)).toBe("ebpf");
});

describe("the node's engine changes under a live pod", () => {
  test.each([
    ["ebpf", "nftables"],
    ["nftables", "ebpf"],
  ] as const)("from %s to %s", async (from, to) => {
    const before = await stateOf(pod());
    const first = await start({ engine: from });
    expect(await first.dataplane.capture(pod(), spec)).toBe(from);
    const old = await openAll(5);
    const load = traffic.load();
    await load.more(30);
    first.dataplane.close();
    const { dataplane } = await start({ engine: to });
    expect(dataplane.observe(pod(), spec).mode).toBe("differs");
    expect(await dataplane.capture(pod(), spec)).toBe(to);
    await load.more(100);
    const { failures, uncaptured } = await load.end();
    expect(failures).toEqual([]);
    expect(uncaptured).toBe(0);
    await expectAlive(old);
    const young = await expectCapturedBy(to);
    expect(dataplane.observe(pod(), spec)).toEqual({ mode: "captured", engine: to, differences: [] });
    expect(dataplane.proxiedConnections(pod())).toBe(old.length + young.length);
    for (const call of old) call.close();
    await expect
      .poll(() => dataplane.observe(pod(), spec).differences)
      .toEqual([`engine ${from} is not needed any more`]);
    expect(await dataplane.capture(pod(), spec)).toBe(to);
    expect(native().nftTables(pod().fd)).toEqual(to === "nftables" ? ["inet ambient-cni"] : []);
    expect((await filters()) === "").toBe(to === "nftables");
    await expectAlive(young);
    for (const call of young) call.close();
    await dataplane.release(pod());
    expect(await stateOf(pod())).toBe(before);
  });

  test("a pod with two engines is drained, and released", async () => {
    const before = await stateOf(pod());
    const first = await start({ engine: "ebpf" });
    await first.dataplane.capture(pod(), spec);
    const old = await openAll(2);
    first.dataplane.close();
    const { dataplane } = await start({ engine: "nftables" });
    await dataplane.capture(pod(), spec);
    const young = await openAll();
    await dataplane.drain(pod(), spec);
    expect(dataplane.observe(pod(), spec).mode).toBe("draining");
    const seen = traffic.ztunnel.accepted.length;
    const direct = await openAll();
    expect(traffic.ztunnel.accepted).toHaveLength(seen);
    await expectAlive([...old, ...young, ...direct]);
    expect(dataplane.proxiedConnections(pod())).toBe(old.length + young.length);
    for (const call of [...old, ...young]) call.close();
    await expect.poll(() => dataplane.proxiedConnections(pod())).toBe(0);
    await dataplane.release(pod());
    await expectAlive(direct);
    expect(await stateOf(pod())).toBe(before);
    expect(await filters()).toBe("");
    expect(dataplane.present(pod())).toBe(false);
  });
});

test("connections older than enrolment survive it, and unenrolment; captured ones finish within the drain time", async () => {
  const { dataplane } = await start();
  const older = await openAll(5);
  expect(traffic.ztunnel.accepted).toEqual([]);
  expect(await dataplane.capture(pod(), spec)).toBe("ebpf");
  await expectAlive(older, "enrolled");
  const captured = await expectCapturedBy("ebpf");
  await dataplane.drain(pod(), spec);
  await expectAlive([...older, ...captured], "draining");
  // What was captured is closed by those who opened it, and that is seen.
  for (const call of captured) {
    call.socket.end();
    await call.end();
  }
  await expect.poll(() => dataplane.proxiedConnections(pod())).toBe(0);
  await dataplane.release(pod());
  await expectAlive(older, "unenrolled");
  const seen = traffic.ztunnel.accepted.length;
  await openAll();
  expect(traffic.ztunnel.accepted).toHaveLength(seen);
});
