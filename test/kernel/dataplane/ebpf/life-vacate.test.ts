// SPDX-License-Identifier: Apache-2.0
// No agent of ours follows: pins go when no pod needs them, and not before.
import { readdirSync } from "node:fs";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { CaptureSpec } from "../../../../src/core/ports/dataplane.ts";
import { NodeDataplane } from "../../../../src/dataplane/dataplane.ts";
import { KNOBS, SCHEMA } from "../../../../src/dataplane/ebpf/node.ts";
import { native } from "../../../../src/native/load.ts";
import { LabAgent } from "../../../support/lab-agent.ts";
import { freshBpffs, LabCgroups, labEbpf } from "../../../support/lab-bpf.ts";
import { noMetrics, quiet, specOf } from "../../../support/lab-dataplane.ts";
import { Call } from "../../../support/lab-peer.ts";
import { expectAlive, TrafficLab } from "../../../support/lab-traffic.ts";

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

async function start(): Promise<NodeDataplane> {
  const engines = [labEbpf(native(), new LabCgroups(), bpffs)];
  const options = { binding: native(), logger: quiet, metrics: noMetrics, config: { engine: "auto" } as const };
  const dataplane = new NodeDataplane({ ...options, engines });
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
