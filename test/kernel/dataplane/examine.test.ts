// SPDX-License-Identifier: Apache-2.0
// What a person is told about a pod's kernel state: all is well with a captured one, and whatever somebody
// took away or put there by hand is named.
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { KernelFact } from "../../../src/core/ports/dataplane.ts";
import { VERDICTS } from "../../../src/core/verdicts.ts";
import type { NodeDataplane } from "../../../src/dataplane/dataplane.ts";
import { native } from "../../../src/native/load.ts";
import { specOf, startDataplane } from "../../support/lab-dataplane.ts";
import { EBPF, IPTABLES_LEGACY, IPTABLES_NFT, type LabEngine, NFTABLES } from "../../support/lab-engines.ts";
import { TrafficLab } from "../../support/lab-traffic.ts";
import { inNetns } from "../../support/netns-lab.ts";

let traffic: TrafficLab;
let dataplane: NodeDataplane | undefined;

beforeEach(async () => {
  traffic = await TrafficLab.create();
});
afterEach(async () => {
  await traffic.close();
  dataplane?.close();
  dataplane = undefined;
});

async function captured(engine: LabEngine): Promise<NodeDataplane> {
  dataplane = await startDataplane(native(), engine);
  await dataplane.capture(traffic.lab.pod.netns, specOf(traffic.lab));
  return dataplane;
}

const facts = (): readonly KernelFact[] => dataplane?.examine(traffic.lab.pod.netns, specOf(traffic.lab)).facts ?? [];
const wrong = () =>
  facts()
    .filter(({ ok }) => ok === false)
    .map(({ name, text }) => `${name}: ${text}`);
const inPod = (command: string) => inNetns(traffic.lab.pod.netns, "sh", "-c", command);

describe.each([EBPF, NFTABLES, IPTABLES_NFT, IPTABLES_LEGACY])("$name", (engine) => {
  test("all is as it should be, and counters count", async () => {
    const started = await captured(engine);
    expect(wrong()).toEqual([]);
    expect(facts().map(({ name }) => name)).toEqual(
      expect.arrayContaining(["capture", "routing", "sysctls", "listener 15001", "listener 15008", "listener 15053"]),
    );
    for (const call of [...(await traffic.openAll()), ...(await traffic.openHbone())]) call.close();
    const verdicts = started.verdicts(traffic.lab.pod.netns, engine.engine);
    expect(verdicts).toMatchObject({ outbound_captured: 2, inbound_captured: 2, inbound_hbone: 2 });
    expect(VERDICTS).toEqual(expect.arrayContaining(Object.keys(verdicts)));
    const { counters } = started.examine(traffic.lab.pod.netns, specOf(traffic.lab));
    expect(Object.values(counters).reduce((a, b) => a + b, 0)).toBeGreaterThan(3);
    await started.release(traffic.lab.pod.netns);
  });

  test.each([
    ["ip rule del pref 32764", /routing: IPv4 policy rule 32764 .* is missing/],
    ["ip -6 route flush table 100", /routing: IPv6 route local default dev lo table 100 is missing/],
  ])("%s", async (command, told) => {
    const started = await captured(engine);
    await inPod(command);
    expect(wrong()).toContainEqual(expect.stringMatching(told));
    await started.release(traffic.lab.pod.netns);
  });
});

test.each([
  [EBPF, "tc filter del dev eth0 egress", /capture: .*eth0/],
  [EBPF, "tc qdisc del dev eth0 clsact", /capture: .*eth0/],
  [EBPF, "tc filter del dev lo ingress", /capture: .*lo/],
  [EBPF, "sysctl -qw net.ipv4.tcp_fwmark_accept=0", /capture: net\/ipv4\/tcp_fwmark_accept is 0, not 1/],
  [NFTABLES, "nft delete table inet ambient-cni", /capture: nothing of ours is in the netns|routing|policy rule/],
  [NFTABLES, "nft flush chain inet ambient-cni nat-output", /capture: .*nat-output/],
  [NFTABLES, "nft insert rule inet ambient-cni nat-output accept", /capture: .*nat-output/],
  [IPTABLES_NFT, "iptables-nft -t nat -F", /capture: /],
  [IPTABLES_LEGACY, "ip6tables-legacy -t nat -F", /capture: /],
] as const)("$0.name: %s is named", async (engine, command, told) => {
  const started = await captured(engine);
  await inPod(command);
  expect(wrong().join("\n")).toMatch(told);
  await started.release(traffic.lab.pod.netns);
});

test("listeners that are not there, and rules of others, are told", async () => {
  const started = await captured(NFTABLES);
  await traffic.ztunnel.close();
  expect(wrong().filter((line) => line.startsWith("listener"))).toHaveLength(5);
  await inPod("nft add table ip theirs");
  expect(facts()).toContainEqual({ name: "other rules", ok: null, text: "ip theirs" });
  await started.release(traffic.lab.pod.netns);
});

test("a pod that is not of the mesh and carries something of ours is told so", async () => {
  const started = await captured(NFTABLES);
  const { facts: found } = started.examine(traffic.lab.pod.netns, undefined);
  expect(found).toContainEqual({ name: "capture", ok: false, text: "nftables is there" });
  await started.release(traffic.lab.pod.netns);
  expect(started.examine(traffic.lab.pod.netns, undefined).facts).toEqual([]);
});
