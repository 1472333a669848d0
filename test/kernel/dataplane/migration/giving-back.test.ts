// SPDX-License-Identifier: Apache-2.0
// What a hand-over to upstream's istio-cni writes for each pod, what it leaves behind, and that it can fail and
// be taken back.
import { afterAll, afterEach, beforeEach, describe, expect, test } from "vitest";
import type { CaptureSpec } from "../../../../src/core/ports/dataplane.ts";
import type { NodeDataplane } from "../../../../src/dataplane/dataplane.ts";
import { addRouting } from "../../../../src/dataplane/routes.ts";
import { type UpstreamSettings, upstreamForm } from "../../../../src/dataplane/upstream/form.ts";
import { UpstreamRules } from "../../../../src/dataplane/upstream/upstream.ts";
import { writeChains } from "../../../../src/dataplane/upstream/write.ts";
import { native } from "../../../../src/native/load.ts";
import { createNetns } from "../../../../src/native/netns.ts";
import { LabAgent } from "../../../support/lab-agent.ts";
import { freshBpffs } from "../../../support/lab-bpf.ts";
import { specOf, stateOf, withoutSysctls } from "../../../support/lab-dataplane.ts";
import { EBPF, IPTABLES_LEGACY, type LabEngine, NFTABLES } from "../../../support/lab-engines.ts";
import { LabGivers } from "../../../support/lab-giver.ts";
import { Call, EchoServer } from "../../../support/lab-peer.ts";
import { expectAlive, TrafficLab, WAYS } from "../../../support/lab-traffic.ts";
import {
  rulesOfUpstream,
  UPSTREAM_FORMS,
  type UpstreamForm,
  type UpstreamPod,
  upstreamRulesIn,
} from "../../../support/lab-upstream.ts";
import { inNetns } from "../../../support/netns-lab.ts";

let traffic: TrafficLab;
let spec: CaptureSpec;
let before: string;
const givers = new LabGivers();

const pod = () => traffic.lab.pod.netns;
const inPod = (command: string) => inNetns(pod(), "sh", "-c", command);

const FORMS = {
  nftables: "nftables",
  "iptables-nft": { 4: "nft", 6: "nft" },
  "iptables-legacy": { 4: "legacy", 6: "legacy" },
} as const;

async function expectCaptured(): Promise<void> {
  const seen = traffic.accepted;
  for (const call of await traffic.openAll()) call.close();
  expect(traffic.accepted).toBe(seen + WAYS.length);
}

/** Under load a pod goes towards istio-cni, by each of these ways, and becomes ours again; in the end wholly. */
async function thereAndBack(
  dataplane: NodeDataplane,
  { engine }: LabEngine,
  ways: readonly (() => Promise<void>)[],
  there: () => void = () => undefined,
): Promise<void> {
  const calls = await traffic.openAll();
  const load = traffic.load();
  for (const way of ways) {
    await load.more(10);
    await way();
    there();
    calls.push(...(await traffic.openAll()));
    await load.more(10);
    expect(await dataplane.capture(pod(), spec, true)).toBe(engine);
    calls.push(...(await traffic.openAll()));
  }
  const { opened, failures } = await load.end();
  expect(failures).toEqual([]);
  expect(traffic.accepted).toBe(opened + calls.length);
  await expectAlive(calls);
  for (const call of calls) call.close();
  await expect.poll(() => dataplane.proxiedConnections(pod())).toBe(0);
  await dataplane.capture(pod(), spec, true);
  await dataplane.capture(pod(), spec, true);
  expect(dataplane.observe(pod(), spec)).toEqual({ mode: "captured", engine, differences: [] });
  expect(new UpstreamRules(native()).traces(pod().fd)).toBeUndefined();
  await dataplane.release(pod());
  expect(await stateOf(pod())).toBe(before);
}

afterAll(() => givers.close());
beforeEach(async () => {
  traffic = await TrafficLab.create();
  spec = specOf(traffic.lab);
  before = await stateOf(pod());
});
afterEach(() => traffic.close());

describe.each(UPSTREAM_FORMS)("to %s", (form) => {
  test.each<[string, Partial<CaptureSpec>, Partial<UpstreamPod>]>([
    ["DNS capture off", { dnsCapture: false }, { dns: false }],
    ["inbound capture bypassed", { bypassInbound: true }, { bypassInbound: true }],
    ["rerouted interfaces", { rerouteInterfaces: ["net1", "net2"] }, { interfaces: ["net1", "net2"] }],
    ["IPv6 off", { ipv6: false }, { ipv6: false }],
  ])("a pod's rules with %s", async (_, changes, upstream) => {
    const netns = createNetns();
    addRouting(native(), netns.fd, changes.ipv6 === false ? [4] : [4, 6]);
    await new UpstreamRules(native()).write(netns.fd, { ...spec, ...changes }, FORMS[form]);
    expect(await upstreamRulesIn(netns)).toBe(await rulesOfUpstream(form, upstream));
    netns.close();
  });

  test("what open connections have still needed goes when they have ended, called again", async () => {
    const dataplane = await givers.of(EBPF, form);
    await dataplane.capture(pod(), spec);
    const old = [...(await traffic.openAll()), ...(await traffic.openHbone())];
    await dataplane.handOver(pod(), spec);
    await dataplane.handOver(pod(), spec);
    await expectAlive(old);
    expect(await inPod("tc filter show dev eth0 ingress")).toContain("ambient_arrive");
    for (const call of old) call.close();
    await expect.poll(() => dataplane.proxiedConnections(pod())).toBe(0);
    await dataplane.handOver(pod(), spec);
    expect(await inPod("tc qdisc show dev eth0; tc qdisc show dev lo")).not.toContain("clsact");
    expect(await upstreamRulesIn(pod())).toBe(await rulesOfUpstream(form));
    const sysctls = ["ipv4.tcp_fwmark_accept", "ipv4.fwmark_reflect", "ipv6.fwmark_reflect"].map(
      (name) => `net.${name}`,
    );
    expect(await inPod(`sysctl -n ${sysctls.join(" ")}`)).toBe("0\n0\n0\n");
    // Or the next upgrade of ztunnel would reset what waits in the queue of the old one.
    expect(await inPod("sysctl -n net.ipv4.tcp_migrate_req")).toBe("1\n");
    await expectCaptured();
  });

  test.each([EBPF, NFTABLES, IPTABLES_LEGACY])("and back to us again, with $name", async (engine) => {
    const dataplane = await givers.of(engine, form);
    await dataplane.capture(pod(), spec);
    const handOver = () => dataplane.handOver(pod(), spec);
    await thereAndBack(dataplane, engine, [handOver, handOver]);
  });
});

test.each([EBPF, NFTABLES])("a pod that can't be handed over stays captured with $name", async (engine) => {
  const dataplane = await givers.of(engine, "iptables-nft");
  await dataplane.capture(pod(), spec);
  // A table of this name that iptables can't work with; in IPv6 only, so that half of the rules are written.
  await inPod("nft add table ip6 nat; nft add chain ip6 nat OUTPUT '{ type filter hook output priority 7; }'");
  const own = await upstreamRulesIn(pod());
  const load = traffic.load();
  await load.more(10);
  await expect(dataplane.handOver(pod(), spec)).rejects.toMatchObject({ code: "IPTABLES_FAILED" });
  await load.more(10);
  expect(await load.end()).toMatchObject({ failures: [], uncaptured: 0 });
  expect(dataplane.observe(pod(), spec)).toEqual({ mode: "captured", engine: engine.engine, differences: [] });
  expect(await upstreamRulesIn(pod())).toBe(own);
});

test("a pod of nobody's is left alone", async () => {
  const dataplane = await givers.of(NFTABLES, "nftables");
  await dataplane.handOver(pod(), spec);
  expect(await stateOf(pod())).toBe(before);
});

describe("legs that only our rules bring back go on by them", () => {
  test("where a pod's sysctls can't be set", async () => {
    const dataplane = await givers.of(NFTABLES, "iptables-nft", withoutSysctls);
    await dataplane.capture(pod(), spec);
    const old = await traffic.openAll();
    await dataplane.handOver(pod(), spec);
    await expectCaptured();
    await expectAlive(old);
    for (const call of old) call.close();
    await expect.poll(() => dataplane.proxiedConnections(pod())).toBe(0);
    await dataplane.handOver(pod(), spec);
    expect(await upstreamRulesIn(pod())).toBe(await rulesOfUpstream("iptables-nft"));
  });

  test.each([EBPF, NFTABLES])("of a listener with a mark of its own, with $name", async (engine) => {
    const dataplane = await givers.of(engine, "iptables-nft");
    const options = { family: 6, bind: { address: "::", port: 8081 }, mark: 7 } as const;
    const marked = await EchoServer.start(pod(), "marked", options);
    await dataplane.capture(pod(), spec);
    const calls: Call[] = [];
    const open = async () => {
      const call = await Call.open(traffic.lab.client.netns, 4, traffic.lab.pod.ipv4, 8081);
      expect((await call.greeting()).name).toBe("marked");
      calls.push(call);
    };
    await open();
    await dataplane.handOver(pod(), spec);
    await open();
    await expectAlive(calls);
    for (const call of calls) call.close();
    await marked.close();
  });
});

test.each([EBPF, NFTABLES, IPTABLES_LEGACY])(
  "a half of a hand-over is taken back by us, with $name",
  async (engine) => {
    const dataplane = await givers.of(engine, "iptables-nft");
    const nat = { variant: "nft", family: 4, tables: [] } as const;
    const halves = [
      () => writeChains(pod().fd, spec, nat, true),
      () => new UpstreamRules(native()).write(pod().fd, spec, FORMS["iptables-nft"], true),
      () => new UpstreamRules(native()).write(pod().fd, spec, "nftables", true),
    ];
    await dataplane.capture(pod(), spec);
    // Killed after any of them: nobody remembers anything.
    await thereAndBack(dataplane, engine, halves, () => {
      expect(dataplane.observe(pod(), spec).differences).toEqual(["istio-cni's rules redirect its connections too"]);
    });
  },
);

describe.each(["ebpf", "nftables"] as const)("agents that are killed while they hand over, with %s", (engine) => {
  test("leave a pod that is captured, which the next one keeps or hands over", async () => {
    const bpffs = freshBpffs();
    const agents: LabAgent[] = [];
    try {
      const first = await LabAgent.start([pod()], { bpffs, engine });
      agents.push(first);
      await first.capture(spec);
      const old = await traffic.openAll();
      const second = await LabAgent.start([pod()], { bpffs, engine });
      agents.push(second);
      const load = traffic.load();
      const given = second.call("handOver", spec).catch(() => undefined);
      await new Promise((resolve) => setTimeout(resolve, 10));
      await second.kill();
      await given;
      await load.more(20);
      expect(await load.end()).toMatchObject({ failures: [], uncaptured: 0 });
      await expectAlive(old);
      expect(await first.capture(spec)).toBe(engine);
      await expectCaptured();
      await expectAlive(old);
      for (const call of old) call.close();
      await first.call("handOver", spec);
      await first.call("handOver", spec);
      // Where this machine's own netns has legacy tables, upstream's agent would use those.
      const { 4: variant } = upstreamForm(native(), null, {}) as { readonly 4: string };
      expect(await upstreamRulesIn(pod())).toBe(await rulesOfUpstream(`iptables-${variant}` as UpstreamForm));
    } finally {
      for (const agent of agents) await agent.kill();
      native().bpfRemove(bpffs);
    }
  });
});

test("the form is what upstream's agent would choose, each family by itself", async () => {
  const host = createNetns();
  const form = (settings: UpstreamSettings = {}) => upstreamForm(native(), host.fd, settings);
  expect(form()).toEqual({ 4: "nft", 6: "nft" });
  // Its own attempt leaves an empty table, which decides the next time.
  await inNetns(host, "ip6tables-legacy", "-t", "nat", "-L");
  expect(form()).toEqual({ 4: "nft", 6: "legacy" });
  expect(form({ forceIptablesBinary: "nft" })).toEqual({ 4: "nft", 6: "nft" });
  expect(form({ nativeNftables: true })).toBe("nftables");
  host.close();
});
