// SPDX-License-Identifier: Apache-2.0
// What is taken away behind the agent's back is named and put back; what is released leaves nothing; what
// belongs to netns that are gone is collected, and nothing else.
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { CaptureSpec } from "../../../../src/core/ports/dataplane.ts";
import { HOME, SCHEMA } from "../../../../src/dataplane/ebpf/node.ts";
import { native } from "../../../../src/native/load.ts";
import { freshBpffs } from "../../../support/lab-bpf.ts";
import { ChoiceLab } from "../../../support/lab-choice.ts";
import { specOf, stateOf } from "../../../support/lab-dataplane.ts";
import { expectAlive, TrafficLab } from "../../../support/lab-traffic.ts";
import { inNetns, NetnsLab } from "../../../support/netns-lab.ts";

let bpffs: string;
let agent: ChoiceLab;
let traffic: TrafficLab;
let spec: CaptureSpec;

beforeAll(async () => {
  bpffs = freshBpffs();
  agent = await ChoiceLab.start({ bpffs: { path: bpffs } });
});
afterAll(() => {
  agent.dataplane.close();
  native().bpfRemove(bpffs);
});
beforeEach(async () => {
  traffic = await TrafficLab.create();
  spec = specOf(traffic.lab);
});
afterEach(async () => {
  await agent.dataplane.release(traffic.lab.pod.netns);
  await traffic.close();
});

const pod = () => traffic.lab.pod.netns;
const cookie = () => native().netnsCookie(pod().fd);
const inPod = (command: string) => inNetns(pod(), "sh", "-c", command);
const bpf = () => agent.ebpf.node.bpf;

describe("taken away by hand", () => {
  test.each<readonly [string, () => unknown, RegExp]>([
    ["the pod's entry", () => bpf().podDelete(cookie()), /the pod's entry is missing/],
    ["the inbound filter", () => inPod("tc filter del dev eth0 ingress"), /TC ingress filter of eth0 is missing/],
    ["the guard", () => inPod("tc filter del dev eth0 egress"), /TC egress filter of eth0 is missing/],
    ["clsact of lo", () => inPod("tc qdisc del dev lo clsact"), /TC ingress filter of lo is missing/],
    ["the pod's link", () => bpf().unpin(`pods/${cookie()}/lookup`), /sk_lookup program is not attached/],
    [
      "the IPv4 route of the shadow",
      () =>
        inPod(
          "ip route del $(ip route show table local | grep -o 'local 255\\.[0-9]*\\.[0-9.]* ' | head -1) table local",
        ),
      /route local 255\.\d+\.\d+\.\d+\/32 dev lo is missing/,
    ],
    [
      "the IPv6 route of what is spread",
      () => inPod("ip -6 route del local fd16:9254:7127:2::/112 table local"),
      /route local fd16:9254:7127:2::\/112 dev lo is missing/,
    ],
    [
      "a link of the pods' cgroup",
      () => {
        for (const cgroup of bpf().pins("outbound")) bpf().unpin(`outbound/${cgroup}/ambient_connect4`);
      },
      /program ambient_connect4 is not attached/,
    ],
  ])("%s", async (_name, take, sentence) => {
    expect(await agent.dataplane.capture(pod(), spec)).toBe("ebpf");
    const lasting = await traffic.openAll();
    await take();
    const seen = agent.dataplane.observe(pod(), spec);
    expect(seen.mode).toBe("differs");
    expect(seen.differences.join("; ")).toMatch(sentence);
    expect(await agent.dataplane.capture(pod(), spec)).toBe("ebpf");
    expect(agent.dataplane.observe(pod(), spec)).toEqual({ mode: "captured", engine: "ebpf", differences: [] });
    const before = traffic.ztunnel.accepted.length;
    const young = await traffic.openAll();
    expect(traffic.ztunnel.accepted).toHaveLength(before + young.length);
    await expectAlive([...lasting, ...young]);
    for (const call of [...lasting, ...young]) call.close();
  });

  test.each([
    ["a TC filter", "tc filter del dev eth0 ingress"],
    ["a route", "ip -6 route del local fd16:9254:7127:2::/112 table local"],
    ["an address that comes", "ip address add 10.66.7.7/32 dev eth0"],
    ["an interface that comes", "ip link add net1 type veth peer name net2"],
  ])("%s calls the watcher", async (_name, command) => {
    await agent.dataplane.capture(pod(), spec);
    let calls = 0;
    const stop = agent.dataplane.watch(pod(), () => calls++);
    try {
      await inPod(command);
      await expect.poll(() => calls).toBeGreaterThan(0);
    } finally {
      stop();
    }
  });
});

test("programs on the pods' cgroup are put back before anybody looks at a pod, and connections are captured again", async () => {
  expect(await agent.dataplane.capture(pod(), spec)).toBe("ebpf");
  expect(agent.dataplane.mendShared()).toEqual([]);
  for (const cgroup of bpf().pins("outbound")) {
    for (const program of ["ambient_connect4", "ambient_connect6"]) bpf().unpin(`outbound/${cgroup}/${program}`);
  }
  await new Promise((resolve) => setImmediate(resolve));
  expect(agent.dataplane.mendShared().join("; ")).toMatch(/ambient_connect4 is not attached.*ambient_connect6 is not/);
  expect(agent.dataplane.observe(pod(), spec).mode).toBe("captured");
  expect(agent.dataplane.mendShared()).toEqual([]);
  const before = traffic.ztunnel.accepted.length;
  const calls = await traffic.openAll();
  expect(traffic.ztunnel.accepted).toHaveLength(before + calls.length);
  for (const call of calls) call.close();
});

test("all that is pinned is taken away: it is pinned again with the maps that pods are captured by, for the next agent", async () => {
  expect(await agent.dataplane.capture(pod(), spec)).toBe("ebpf");
  const lasting = await traffic.openAll();
  const home = join(bpffs, HOME);
  const pinned = () => native().bpfPinned(join(home, `v${SCHEMA}`));
  const before = pinned();
  expect(before.map((one) => one.cookie)).toContain(cookie());
  native().bpfRemove(home);
  await new Promise((resolve) => setImmediate(resolve));
  expect(agent.dataplane.mendShared().join("; ")).toMatch(
    /^the programs and maps are not pinned any more; .*ambient_connect4 is not attached/,
  );
  expect(agent.dataplane.mendShared()).toEqual([]);
  expect(pinned()).toEqual(before);
  expect(bpf().pins("programs")).toEqual([bpf().generation]);
  expect(agent.dataplane.observe(pod(), spec).differences).toEqual(["the sk_lookup program is not attached"]);
  expect(await agent.dataplane.capture(pod(), spec)).toBe("ebpf");
  const accepted = traffic.ztunnel.accepted.length;
  const young = await traffic.openAll();
  expect(traffic.ztunnel.accepted).toHaveLength(accepted + young.length);
  await expectAlive([...lasting, ...young]);
  for (const call of [...lasting, ...young]) call.close();
});

describe("an exclusion of settings that never came true excludes nobody", () => {
  const ELSEWHERE = "192.0.2.0/24";
  const excluding = (...cidrs: string[]) => specOf(traffic.lab, { excludeOutboundCidrs: cidrs });
  /** More than the node has room for. */
  const tooMuch = () =>
    excluding(
      `${traffic.lab.client.ipv4}/32`,
      ...Array.from({ length: 1 << 16 }, (_, i) => `198.18.${i >> 8}.${i & 255}/32`),
    );

  async function expectNothingExcluded(): Promise<void> {
    expect(await agent.dataplane.capture(pod(), excluding(ELSEWHERE))).toBe("ebpf");
    const before = traffic.ztunnel.accepted.length;
    const calls = await traffic.openAll();
    expect(traffic.ztunnel.accepted).toHaveLength(before + calls.length);
    for (const call of calls) call.close();
  }

  test("when the writer was killed before the pod's entry, which is written last", async () => {
    await agent.dataplane.capture(pod(), excluding(`${traffic.lab.client.ipv4}/32`));
    bpf().erase("maps/pods", cookie());
    await expectNothingExcluded();
  });

  test("when the write failed halfway", async () => {
    await agent.dataplane.capture(pod(), excluding(ELSEWHERE));
    const state = agent.ebpf.state(pod()) ?? { sysctls: "" };
    await expect(agent.ebpf.apply(pod(), tooMuch(), state)).rejects.toThrow(/BPF map excludes.*it is full/);
    expect(agent.dataplane.observe(pod(), excluding(ELSEWHERE)).mode).toBe("differs");
    await expectNothingExcluded();
    expect(agent.dataplane.observe(pod(), excluding(ELSEWHERE)).mode).toBe("captured");
  });

  test("where there is no room for them another engine takes over, and what the first one wrote is gone", async () => {
    // It takes seconds: who asks for a neighbour again meanwhile, with a translated packet in hand, needs an address for that.
    for (const [{ netns }, device, address] of [
      [traffic.lab.client, "veth0", "fe80::1"],
      [traffic.lab.pod, "eth0", "fe80::2"],
    ] as const) {
      native().addressAdd(netns.fd, device, address, 64);
    }
    await agent.dataplane.capture(pod(), excluding(ELSEWHERE));
    const lasting = await traffic.openAll();
    const wanted = tooMuch();
    expect(await agent.dataplane.capture(pod(), wanted)).toBe("nftables");
    expect(agent.dataplane.observe(pod(), wanted)).toEqual({ mode: "captured", engine: "nftables", differences: [] });
    await expectAlive(lasting);
    const neighbour = NetnsLab.create();
    try {
      const its = specOf(neighbour, { ips: ["10.66.1.1"], excludeOutboundCidrs: [ELSEWHERE] });
      await inNetns(neighbour.pod.netns, "sh", "-c", "ip address flush dev eth0; ip address add 10.66.1.1/16 dev eth0");
      expect(await agent.dataplane.capture(neighbour.pod.netns, its)).toBe("ebpf");
      await agent.dataplane.release(neighbour.pod.netns);
    } finally {
      neighbour.close();
    }
    for (const call of lasting) call.close();
  });
});

const attached = async () =>
  await inPod(
    "for dev in eth0 lo; do tc qdisc show dev $dev; tc filter show dev $dev ingress; tc filter show dev $dev egress; done",
  );
const kept = () => ({
  pods: bpf().pins("pods"),
  cookies: bpf().podCookies(),
  shadows: agent.ebpf.node.isTaken("255.2.11.65", 0n),
});

test("release leaves nothing behind: netns, TC, pins, map entries", async () => {
  const before = { state: await stateOf(pod()), attached: await attached(), kept: kept() };
  await agent.dataplane.capture(pod(), spec);
  for (const call of await traffic.openAll()) call.close();
  expect(await attached()).not.toBe(before.attached);
  expect(kept().pods).toHaveLength(before.kept.pods.length + 1);
  await agent.dataplane.release(pod());
  expect({ state: await stateOf(pod()), attached: await attached(), kept: kept() }).toEqual(before);
});

test("a clsact and a filter of somebody else stay", async () => {
  await inPod(
    "tc qdisc add dev eth0 clsact; tc filter add dev eth0 ingress prio 9 protocol all bpf bytecode '1,6 0 0 0'",
  );
  const before = await attached();
  await agent.dataplane.capture(pod(), spec);
  for (const call of await traffic.openAll()) call.close();
  await agent.dataplane.release(pod());
  expect(await attached()).toBe(before);
});

describe("collect", () => {
  test("removes what belongs to a netns that is gone, and an address that is another pod's by now stays", async () => {
    const gone = NetnsLab.create();
    const goneCookie = native().netnsCookie(gone.pod.netns.fd);
    await agent.dataplane.capture(gone.pod.netns, specOf(gone));
    gone.close();
    await expect.poll(() => bpf().link(`pods/${goneCookie}/lookup`)?.target).toBe(0n);
    // The new pod has the same addresses; the old one was not looked at since.
    await agent.dataplane.capture(pod(), spec);
    expect(bpf().podRead(goneCookie)).toBeDefined();
    agent.dataplane.collect();
    expect(bpf().podRead(goneCookie)).toBeUndefined();
    expect(bpf().pins("pods")).toEqual([String(cookie())]);
    expect(agent.dataplane.observe(pod(), spec)).toEqual({ mode: "captured", engine: "ebpf", differences: [] });
    const seen = traffic.ztunnel.accepted.length;
    for (const call of await traffic.openAll()) call.close();
    expect(traffic.ztunnel.accepted).toHaveLength(seen + 4);
  });

  test("lives with pins whose pod was never written, and names that are not its own", async () => {
    await agent.dataplane.capture(pod(), spec);
    await inNetns(pod(), "mkdir", "-p", `${bpffs}/ambient-cni/v1/pods/4242`, `${bpffs}/ambient-cni/v1/pods/foreign`);
    agent.dataplane.collect();
    expect(bpf().pins("pods").sort()).toEqual([String(cookie()), "foreign"].sort());
    expect(agent.dataplane.observe(pod(), spec).mode).toBe("captured");
    bpf().unpin("pods/foreign");
  });
});

test("50 pods are enrolled and unenrolled, two at a time, and nothing of their neighbour's is lost", async () => {
  await agent.dataplane.capture(pod(), spec);
  const lasting = await traffic.openAll(2);
  const load = traffic.load();
  const labs = Array.from({ length: 10 }, () => NetnsLab.create());
  const specs = new Map(labs.map((lab, i) => [lab, specOf(lab, { ips: [`10.66.1.${i + 1}`, `fd66::1:${i + 1}`] })]));
  for (const [lab, { ips }] of specs) {
    const add = ips.map((ip) => `ip address add ${ip}/${ip.includes(":") ? "64 nodad" : "16"} dev eth0`).join("; ");
    await inNetns(lab.pod.netns, "sh", "-c", `ip -4 address flush dev eth0; ip -6 address flush dev eth0; ${add}`);
  }
  const own = (lab: NetnsLab) => specs.get(lab) ?? specOf(lab);
  try {
    for (let round = 0; round < 5; round++) {
      for (let i = 0; i < labs.length; i += 2) {
        const two = labs.slice(i, i + 2);
        await Promise.all(two.map((lab) => agent.dataplane.capture(lab.pod.netns, own(lab))));
        await load.more(4);
        for (const lab of two) expect(agent.dataplane.observe(lab.pod.netns, own(lab)).engine).toBe("ebpf");
        await Promise.all(two.map((lab) => agent.dataplane.release(lab.pod.netns)));
      }
    }
  } finally {
    for (const lab of labs) lab.close();
  }
  const { failures, uncaptured } = await load.end();
  expect(failures).toEqual([]);
  expect(uncaptured).toBe(0);
  await expectAlive(lasting);
  for (const call of lasting) call.close();
  expect(bpf().podCookies()).toEqual([cookie()]);
});
