// SPDX-License-Identifier: Apache-2.0
// An agent that can't reach the pins of the one before it: a chart without the node's /proc, a bpffs that
// was unmounted.
import { afterEach, beforeEach, expect, test } from "vitest";
import { NodeDataplane } from "../../../../src/dataplane/dataplane.ts";
import { EbpfEngine } from "../../../../src/dataplane/ebpf/engine.ts";
import { NftablesEngine } from "../../../../src/dataplane/nftables/engine.ts";
import { native } from "../../../../src/native/load.ts";
import { labBpffs, labEbpf } from "../../../support/lab-bpf.ts";
import { noMetrics, quiet, specOf, stateOf } from "../../../support/lab-dataplane.ts";
import { Call, EchoServer } from "../../../support/lab-peer.ts";
import { LabZtunnel } from "../../../support/lab-ztunnel.ts";
import { ipOf, NetnsLab } from "../../../support/netns-lab.ts";

const APP = 8080;
const NO_BPFFS = { reason: "no bpffs is mounted" };

let lab: NetnsLab;
let ztunnel: LabZtunnel;
let app: EchoServer;
let blind: NodeDataplane;

beforeEach(async () => {
  lab = NetnsLab.create();
  ztunnel = await LabZtunnel.start(lab.pod.netns);
  app = await EchoServer.start(lab.pod.netns, "app", { family: 6, bind: { address: "::", port: APP } });
  const binding = native();
  const engines = [
    new EbpfEngine({ binding, logger: quiet, bpffs: NO_BPFFS, cgroups: { reason: "not asked" } }),
    new NftablesEngine(binding, quiet),
  ];
  blind = new NodeDataplane({ binding, logger: quiet, metrics: noMetrics, config: { engine: "auto" }, engines });
  await blind.start();
});
afterEach(async () => {
  blind.close();
  await app.close();
  await ztunnel.close();
  lab.close();
});

async function capturedByEbpf(): Promise<NodeDataplane> {
  const binding = native();
  const options = { binding, logger: quiet, metrics: noMetrics, config: { engine: "auto" } as const };
  const dataplane = new NodeDataplane({ ...options, engines: [labEbpf()] });
  await dataplane.start();
  expect(await dataplane.capture(lab.pod.netns, specOf(lab))).toBe("ebpf");
  return dataplane;
}

async function expectThroughZtunnel(family: 4 | 6): Promise<void> {
  const before = ztunnel.accepted.length;
  const call = await Call.open(lab.client.netns, family, ipOf(lab.pod, family), APP);
  expect((await call.greeting()).name).toBe("app");
  expect(ztunnel.accepted).toHaveLength(before + 1);
  call.close();
}

test("a pod that eBPF captures is left to it, and not captured a second time", async () => {
  const dataplane = await capturedByEbpf();
  const before = await stateOf(lab.pod.netns);
  await expect(blind.capture(lab.pod.netns, specOf(lab), true)).rejects.toMatchObject({
    code: "ENGINE_UNREACHABLE",
    message: expect.stringContaining("is captured by eBPF, which can't be reached: no bpffs is mounted"),
  });
  expect(await stateOf(lab.pod.netns)).toBe(before);
  for (const family of [4, 6] as const) await expectThroughZtunnel(family);
  await dataplane.release(lab.pod.netns);
  dataplane.close();
});

test("where the pins are gone nobody reaches the app past ztunnel, and the next engine takes over", async () => {
  const dataplane = await capturedByEbpf();
  dataplane.close();
  native().bpfRemove(`${labBpffs()}/ambient-cni`);
  // The kernel takes a link apart a moment after its last pin went.
  await expect.poll(() => native().bpfNetnsLinked(lab.pod.netns.fd)).toBe(false);
  for (const family of [4, 6] as const) {
    const call = Call.open(lab.client.netns, family, ipOf(lab.pod, family), APP, { timeout: 500 });
    await expect(call).rejects.toMatchObject({ code: "ETIMEDOUT" });
  }
  expect(ztunnel.accepted).toEqual([]);
  expect(await blind.capture(lab.pod.netns, specOf(lab), true)).toBe("nftables");
  for (const family of [4, 6] as const) await expectThroughZtunnel(family);
  await blind.release(lab.pod.netns);
  expect(await stateOf(lab.pod.netns)).not.toMatch(/local 255\.|ambient/);
});
