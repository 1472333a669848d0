// SPDX-License-Identifier: Apache-2.0
// An agent of another version takes over live pods, forth and back: the same schema with other programs,
// and another schema with maps of its own. Connections come and go meanwhile.
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { CaptureSpec } from "../../../../src/core/ports/dataplane.ts";
import { type EbpfVersion, KNOBS, SCHEMA } from "../../../../src/dataplane/ebpf/node.ts";
import { native } from "../../../../src/native/load.ts";
import { LabAgent } from "../../../support/lab-agent.ts";
import { freshBpffs } from "../../../support/lab-bpf.ts";
import { specOf, stateOf } from "../../../support/lab-dataplane.ts";
import { expectAlive, TrafficLab } from "../../../support/lab-traffic.ts";
import { inNetns } from "../../../support/netns-lab.ts";

const OURS: EbpfVersion = { schema: SCHEMA, knobs: KNOBS };
/** Other programs, for no packet of these tests the other port matters. */
const OTHER_PROGRAMS: EbpfVersion = { schema: SCHEMA, knobs: { ...KNOBS, hbonePort: 15018 } };
const OTHER_SCHEMA: EbpfVersion = { schema: SCHEMA + 1, knobs: KNOBS };

let traffic: TrafficLab;
let spec: CaptureSpec;
let bpffs: string;
const agents: LabAgent[] = [];

async function start(version: EbpfVersion, engine: "auto" | "nftables" = "auto"): Promise<LabAgent> {
  const agent = LabAgent.spawn([traffic.lab.pod.netns], { bpffs, version, engine });
  agents.push(agent);
  await agent.call("start");
  return agent;
}

beforeEach(async () => {
  bpffs = freshBpffs();
  traffic = await TrafficLab.create();
  spec = specOf(traffic.lab);
});
afterEach(async () => {
  for (const agent of agents.splice(0)) await agent.kill();
  native().bpfRemove(bpffs);
  await traffic.close();
});

const pins = (...path: string[]) => readdirSync(join(bpffs, "ambient-cni", ...path)).sort();
const shadows = async () =>
  (await inNetns(traffic.lab.pod.netns, "sh", "-c", "ip route show table local; ip -6 route show table local"))
    .split("\n")
    .filter((line) => /dev lo proto static/.test(line));

async function expectHandOver(from: EbpfVersion, to: EbpfVersion): Promise<LabAgent> {
  const old = await start(from);
  await old.capture(spec);
  const { ambient_lookup: lookup } = await old.programs();
  const routes = await shadows();
  const lasting = await traffic.openAll(5);
  const load = traffic.load();
  await load.more(50);
  await old.kill();
  const agent = await start(to);
  expect((await agent.programs()).ambient_lookup).not.toBe(lookup);
  // The old programs serve the pod until it is looked at.
  await load.more(50);
  await agent.call("collect");
  await agent.call("collect");
  expect((await agent.observe(spec)).mode).toBe("differs");
  expect(pins("v1", "programs")).toHaveLength(from.schema === to.schema ? 2 : 1);
  await load.more(50);
  expect(await agent.capture(spec)).toBe("ebpf");
  expect(await agent.observe(spec)).toEqual({ mode: "captured", engine: "ebpf", differences: [] });
  await load.more(50);
  const young = await traffic.openAll();
  for (let i = 0; i < 3; i++) {
    await agent.call("collect");
    await load.more(50);
  }
  const { failures, uncaptured } = await load.end();
  expect(failures).toEqual([]);
  // ztunnel has seen those, which the load does not count, and every one of the load's.
  expect(uncaptured).toBe(-young.length);
  expect(await shadows()).toEqual(routes);
  for (const call of [...lasting, ...young]) await expectAlive([call]);
  for (const call of [...lasting, ...young]) call.close();
  return agent;
}

describe.each([
  ["upgrade", OURS, OTHER_PROGRAMS],
  ["downgrade", OTHER_PROGRAMS, OURS],
])("%s of the programs", (_name, from, to) => {
  test("replaces them in place, and the old ones go when no pod runs them", async () => {
    const agent = await expectHandOver(from, to);
    expect(pins("v1", "programs")).toHaveLength(1);
    // Programs of the kernel that belong to the pod are the new ones everywhere.
    const ids = Object.values(await agent.programs());
    const filters = await inNetns(
      traffic.lab.pod.netns,
      "sh",
      "-c",
      "for dev in eth0 lo; do tc filter show dev $dev ingress; tc filter show dev $dev egress; done",
    );
    const running = [...filters.matchAll(/ id (\d+) /g)].map(([, id]) => Number(id));
    expect(running).toHaveLength(3);
    for (const id of running) expect(ids).toContain(id);
  });
});

describe.each([
  ["upgrade", OURS, OTHER_SCHEMA],
  ["downgrade", OTHER_SCHEMA, OURS],
])("%s of the schema", (_name, from, to) => {
  test("attaches the pod anew with the shadow it has, and the old directory goes", async () => {
    // The directory of ours is looked at by name above.
    const old = from === OURS ? undefined : await start(OURS);
    await old?.kill();
    const agent = await expectHandOver(from, to);
    expect(pins()).toEqual([`v${to.schema}`]);
    await agent.call("release");
  });
});

test("a pod of another schema that is released leaves nothing in the netns, and is captured by nobody", async () => {
  const before = await stateOf(traffic.lab.pod.netns);
  const old = await start(OURS);
  await old.capture(spec);
  await old.kill();
  const agent = await start(OTHER_SCHEMA);
  await agent.call("release");
  expect(await stateOf(traffic.lab.pod.netns)).toBe(before);
  expect(pins("v1", "pods")).toEqual([]);
  const seen = traffic.ztunnel.accepted.length;
  for (const call of await traffic.openAll()) call.close();
  expect(traffic.ztunnel.accepted).toHaveLength(seen);
});

test("a pod of another schema changes its engine with connections alive", async () => {
  const old = await start(OURS);
  await old.capture(spec);
  const lasting = await traffic.openAll(2);
  await old.kill();
  const agent = await start(OTHER_SCHEMA);
  const nftables: CaptureSpec = { ...spec, engine: "nftables" };
  expect(await agent.capture(nftables)).toBe("nftables");
  await expectAlive(lasting);
  const seen = traffic.ztunnel.accepted.length;
  const young = await traffic.openAll();
  expect(traffic.ztunnel.accepted).toHaveLength(seen + young.length);
  // Redirected to the pod's own address, and not to one of eBPF's.
  expect(young.every((call) => !call.peer.address.startsWith("255."))).toBe(true);
  for (const call of [...lasting, ...young]) call.close();
});
