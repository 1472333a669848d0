// SPDX-License-Identifier: Apache-2.0
// What the programs tell about first packets: to whoever listens, and nothing while nobody does.
import { expect, test } from "vitest";
import type { BpfFlow } from "../../../../src/native/bpf.ts";
import { native } from "../../../../src/native/load.ts";
import { labEbpf } from "../../../support/lab-bpf.ts";
import { specOf } from "../../../support/lab-dataplane.ts";
import { Call, EchoServer } from "../../../support/lab-peer.ts";
import { LabZtunnel } from "../../../support/lab-ztunnel.ts";
import { NetnsLab } from "../../../support/netns-lab.ts";

test("flows are told with their verdict while somebody listens, and counted always", async () => {
  using lab = NetnsLab.create();
  const engine = labEbpf();
  expect((await engine.selfTest()).reason).toBeUndefined();
  const ztunnel = await LabZtunnel.start(lab.pod.netns);
  const app = await EchoServer.start(lab.pod.netns, "app", { family: 6, bind: { address: "::", port: 8080 } });
  const told: BpfFlow[] = [];
  const { bpf } = engine.node;
  const stop = bpf.events((flows) => told.push(...flows));
  try {
    engine.meet({ connection: 1, pid: 0, pidfd: -1 });
    await engine.apply(lab.pod.netns, specOf(lab), { sysctls: "" });
    const call = async () => (await Call.open(lab.client.netns, 4, lab.pod.ipv4, 8080)).close();
    await call();
    bpf.stateWrite({ events: 1 });
    await call();
    await expect.poll(() => told.map(({ verdict }) => verdict)).toEqual(["inbound_captured"]);
    expect(told[0]).toMatchObject({
      cookie: native().netnsCookie(lab.pod.netns.fd),
      protocol: "tcp",
      source: lab.client.ipv4,
      destination: lab.pod.ipv4,
      destinationPort: 8080,
    });
    bpf.stateWrite({ events: 0 });
    await call();
    expect(engine.counters(lab.pod.netns)).toMatchObject({ inbound_captured: 3, outbound_captured: 0 });
    expect(told).toHaveLength(1);
  } finally {
    bpf.stateWrite({ events: 0 });
    stop();
    await engine.remove(lab.pod.netns);
    engine.close();
    await app.close();
    await ztunnel.close();
  }
});
