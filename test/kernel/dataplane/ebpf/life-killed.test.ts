// SPDX-License-Identifier: Apache-2.0
// An agent is killed at any moment while connections come and go: none fails, none passes ztunnel by, and
// the next agent finds everything as it was.
import { afterEach, beforeEach, expect, test } from "vitest";
import { native } from "../../../../src/native/load.ts";
import { LabAgent } from "../../../support/lab-agent.ts";
import { freshBpffs } from "../../../support/lab-bpf.ts";
import { specOf, stateOf } from "../../../support/lab-dataplane.ts";
import { expectAlive, TrafficLab } from "../../../support/lab-traffic.ts";
import { inNetns } from "../../../support/netns-lab.ts";

let traffic: TrafficLab;
let bpffs: string;
const agents: LabAgent[] = [];

function spawn(): LabAgent {
  const agent = LabAgent.spawn([traffic.lab.pod.netns], { bpffs });
  agents.push(agent);
  return agent;
}

beforeEach(async () => {
  bpffs = freshBpffs();
  traffic = await TrafficLab.create();
});
afterEach(async () => {
  for (const agent of agents.splice(0)) await agent.kill();
  native().bpfRemove(bpffs);
  await traffic.close();
});

/** TC filters with the ids of their programs, and local routes with the shadow. */
const attached = () =>
  inNetns(
    traffic.lab.pod.netns,
    "sh",
    "-c",
    "for dev in eth0 lo; do tc filter show dev $dev ingress; tc filter show dev $dev egress; done; ip route show table local; ip -6 route show table local",
  );

test("an idle agent is killed: capture goes on, and the next one adopts it without a fork or a load", async () => {
  const spec = specOf(traffic.lab);
  const before = await stateOf(traffic.lab.pod.netns);
  const first = spawn();
  await first.call("start");
  await first.capture(spec);
  const programs = await first.programs();
  const kernel = await attached();
  const lasting = await traffic.openAll(3);
  const load = traffic.load();
  await load.more(50);
  await first.kill();
  await load.more(200);
  const second = spawn();
  await second.call("start");
  const forks = await second.call("forks");
  expect(await second.observe(spec)).toEqual({ mode: "captured", engine: "ebpf", differences: [] });
  expect(await second.capture(spec)).toBe("ebpf");
  expect(await second.call("forks")).toBe(forks);
  expect(await second.programs()).toEqual(programs);
  expect(await attached()).toBe(kernel);
  await load.more(50);
  const { opened, failures, uncaptured } = await load.end();
  expect(failures).toEqual([]);
  expect(uncaptured).toBe(0);
  expect(opened).toBeGreaterThan(300);
  await expectAlive(lasting);
  for (const call of lasting) call.close();
  // What the first one noted about the pod is enough to leave nothing behind.
  await second.call("release");
  expect(await stateOf(traffic.lab.pod.netns)).toBe(before);
});

test("agents are killed again and again, at start and within a change of the pod's settings", async () => {
  const specs = [specOf(traffic.lab), specOf(traffic.lab, { excludeOutboundCidrs: ["192.0.2.0/24"] })] as const;
  const first = spawn();
  await first.call("start");
  await first.capture(specs[0]);
  const lasting = await traffic.openAll(2);
  const load = traffic.load();
  const KILLS = 8;
  let next = spawn();
  for (let kill = 0; kill < KILLS; kill++) {
    const agent = next;
    next = spawn();
    // Half of them die while they start or test themselves, half while they write.
    const starting = agent.call("start").catch(() => undefined);
    if (kill % 2 === 0) {
      await new Promise((resolve) => setTimeout(resolve, 700 + kill * 40));
    } else {
      await starting;
      const writing = (async () => {
        for (let i = 0; ; i++) await agent.capture(specs[i % 2 === 0 ? 1 : 0]);
      })().catch(() => undefined);
      await load.more(5 + kill * 3);
      await agent.kill();
      await writing;
    }
    await agent.kill();
    await load.more(10);
  }
  await next.call("start");
  await next.capture(specs[0]);
  expect(await next.observe(specs[0])).toEqual({ mode: "captured", engine: "ebpf", differences: [] });
  const { failures, uncaptured } = await load.end();
  expect(failures).toEqual([]);
  expect(uncaptured).toBe(0);
  await expectAlive(lasting);
  for (const call of lasting) call.close();
});
