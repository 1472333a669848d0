// SPDX-License-Identifier: Apache-2.0
// No agent of ours follows: pins go when no pod needs them, and not before.
import { readdirSync } from "node:fs";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { CaptureSpec } from "../../../../src/core/ports/dataplane.ts";
import { NodeDataplane } from "../../../../src/dataplane/dataplane.ts";
import type { EbpfEngine } from "../../../../src/dataplane/ebpf/engine.ts";
import { type EbpfNode, KNOBS, SCHEMA } from "../../../../src/dataplane/ebpf/node.ts";
import { native } from "../../../../src/native/load.ts";
import { type Fault, Faults } from "../../../support/faulty-binding.ts";
import { LabAgent } from "../../../support/lab-agent.ts";
import { freshBpffs, LabCgroups, labEbpf } from "../../../support/lab-bpf.ts";
import { noMetrics, quiet, specOf } from "../../../support/lab-dataplane.ts";
import { Call } from "../../../support/lab-peer.ts";
import { expectAlive, TrafficLab } from "../../../support/lab-traffic.ts";
import { NetnsLab } from "../../../support/netns-lab.ts";

const BESIDE = "10.66.9.9";

let traffic: TrafficLab;
let spec: CaptureSpec;
let bpffs: string;

beforeEach(async () => {
  bpffs = freshBpffs();
  traffic = await TrafficLab.create();
  spec = specOf(traffic.lab);
});
afterEach(async () => {
  native().bpfRemove(bpffs);
  await traffic.close();
});

function dataplaneOf(engine: EbpfEngine): NodeDataplane {
  const options = { binding: native(), logger: quiet, metrics: noMetrics, config: { engine: "auto" } as const };
  return new NodeDataplane({ ...options, engines: [engine] });
}

async function start(): Promise<NodeDataplane> {
  const dataplane = dataplaneOf(labEbpf(native(), new LabCgroups(), bpffs));
  await dataplane.start();
  return dataplane;
}

const home = () => readdirSync(bpffs);
const podId = () => traffic.lab.pod.netns.id;

test("pins stay for a pod that is in use, and its connections with them", async () => {
  const dataplane = await start();
  await dataplane.capture(traffic.lab.pod.netns, spec);
  const calls = await traffic.openAll();
  expect(dataplane.vacate(new Set([podId()]))).toEqual([expect.stringContaining("for 1 pods")]);
  dataplane.close();
  const load = traffic.load();
  await load.more(30);
  expect(await load.end()).toMatchObject({ failures: [], uncaptured: 0 });
  await expectAlive(calls);
  for (const call of calls) call.close();
  const next = await start();
  expect(next.observe(traffic.lab.pod.netns, spec).mode).toBe("captured");
  next.close();
});

test("a netns that nobody is in holds nothing up: everything goes, twice over", async () => {
  const dataplane = await start();
  await dataplane.capture(traffic.lab.pod.netns, spec);
  expect(dataplane.vacate(new Set())).toEqual([]);
  expect(home()).toEqual([]);
  expect(dataplane.vacate(new Set())).toEqual([]);
  dataplane.close();
});

test("released pods leave nothing pinned", async () => {
  const dataplane = await start();
  await dataplane.capture(traffic.lab.pod.netns, spec);
  await dataplane.release(traffic.lab.pod.netns);
  expect(dataplane.vacate(new Set([podId()]))).toEqual([]);
  expect(home()).toEqual([]);
  const call = await Call.open(traffic.lab.client.netns, 4, traffic.lab.pod.ipv4, 8080);
  expect(await call.greeting()).toMatchObject({ name: "app" });
  call.close();
});

test("pods of another schema count as well", async () => {
  const other = LabAgent.spawn([traffic.lab.pod.netns], { bpffs, version: { schema: SCHEMA + 1, knobs: KNOBS } });
  await other.call("start");
  await other.capture(spec);
  await other.kill();
  const dataplane = await start();
  expect(dataplane.vacate(new Set([podId()]))).toEqual([expect.stringContaining("for 1 pods")]);
  expect(dataplane.vacate(new Set())).toEqual([]);
  expect(home()).toEqual([]);
  dataplane.close();
});

describe.each<Fault>(["killed", "refused"])("%s at any write", (fault) => {
  let faulty: EbpfEngine;
  let next: EbpfEngine;
  let dataplane: NodeDataplane;
  const faults = new Faults();

  beforeEach(async () => {
    [faulty, next] = [faults.binding(), native()].map((binding) => labEbpf(binding, new LabCgroups(), bpffs)) as [
      EbpfEngine,
      EbpfEngine,
    ];
    dataplane = dataplaneOf(next);
    await dataplane.start();
    await faulty.selfTest();
    await dataplane.capture(traffic.lab.pod.netns, spec);
  });
  afterEach(() => {
    faulty.close();
    dataplane.close();
  });

  const entries = () => [...next.node.bpf.pins("pods"), ...next.node.bpf.podCookies().map(String)].sort();

  /** One pod beside ours has gone, by `leave`: what is of it goes in the end, and nothing of ours ever. */
  async function everywhere(
    leave: (beside: NetnsLab, target: () => bigint | undefined) => Promise<void>,
    takeOut: (node: EbpfNode) => unknown,
  ): Promise<void> {
    const ours = entries();
    for (let writes = 0, unmade: string | undefined = ""; unmade !== undefined; writes++) {
      const beside = NetnsLab.create();
      const { netns } = beside.pod;
      // No two pods have one address, and none that appears a second later.
      native().sysctlSet(netns.fd, "net/ipv6/conf/eth0/disable_ipv6", "1");
      native().addressDelete(netns.fd, "eth0", beside.pod.ipv4, 16);
      native().addressAdd(netns.fd, "eth0", BESIDE, 16);
      const cookie = native().netnsCookie(netns.fd);
      await dataplane.capture(netns, { ...spec, ips: [BESIDE] });
      expect(entries()).toHaveLength(ours.length + 2);
      await leave(beside, () => next.node.bpf.link(`pods/${cookie}/lookup`)?.target);
      unmade = await faults.during(fault, writes, async () => takeOut(faulty.node));
      expect(entries()).toEqual(expect.arrayContaining(ours));
      takeOut(next.node);
      expect(entries()).toEqual(ours);
      beside.close();
    }
    const load = traffic.load();
    await load.more(16);
    expect(await load.end()).toMatchObject({ failures: [], uncaptured: 0 });
  }

  test("pods whose netns is gone are collected, and no other", async () => {
    await everywhere(
      async (beside, target) => {
        beside.close();
        await expect.poll(target, { interval: 1 }).toBe(0n);
      },
      (node) => node.collect(),
    );
  });

  test("pods that nobody is in are left behind, and no other", async () => {
    const { ino } = native().netnsIdentify(traffic.lab.pod.netns.fd);
    await everywhere(
      async () => undefined,
      (node) => node.vacate((inode) => inode === ino),
    );
  });

  test("nothing is left where no pod is captured", async () => {
    await dataplane.release(traffic.lab.pod.netns);
    expect(await faults.during(fault, 0, async () => faulty.vacate(new Set()))).toBe("bpfRemove");
    expect(faulty.vacate(new Set())).toBeUndefined();
    expect(home()).toEqual([]);
  });
});
