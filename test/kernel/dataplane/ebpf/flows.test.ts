// SPDX-License-Identifier: Apache-2.0
// What the programs tell about first packets: to whoever reads, for as long as he does, and how many found no room.
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { ZTUNNEL_MARK } from "../../../../src/core/constants.ts";
import { FLOW_WORDS } from "../../../../src/core/flow/words.ts";
import type { CaptureSpec } from "../../../../src/core/ports/dataplane.ts";
import type { Flow, FlowBatch } from "../../../../src/core/ports/flows.ts";
import type { EbpfEngine } from "../../../../src/dataplane/ebpf/engine.ts";
import { LEASE_MS } from "../../../../src/dataplane/ebpf/flows.ts";
import { native } from "../../../../src/native/load.ts";
import { labEbpf } from "../../../support/lab-bpf.ts";
import { specOf } from "../../../support/lab-dataplane.ts";
import { Call, EchoServer } from "../../../support/lab-peer.ts";
import { LabZtunnel } from "../../../support/lab-ztunnel.ts";
import { NetnsLab } from "../../../support/netns-lab.ts";

const EXCLUDED = "10.66.7.7";
const BYPASSING = { bypassInbound: true };
/** A second at 1,000 connections. */
const FLOOD = 6000;

let engine: EbpfEngine;
let lab: NetnsLab;
let ztunnel: LabZtunnel;
let app: EchoServer;
let remote: EchoServer;

beforeAll(async () => {
  engine = labEbpf();
  expect((await engine.selfTest()).reason).toBeUndefined();
  engine.meet({ connection: 1, pid: 0, pidfd: -1 });
});
afterAll(() => engine.close());
beforeEach(async () => {
  lab = NetnsLab.create();
  lab.remote(4, EXCLUDED);
  ztunnel = await LabZtunnel.start(lab.pod.netns);
  app = await EchoServer.start(lab.pod.netns, "app", { family: 6, bind: { address: "::", port: 8080 } });
  remote = await EchoServer.start(lab.client.netns, "remote", { family: 6, bind: { address: "::", port: 80 } });
  await capture();
});
afterEach(async () => {
  await engine.remove(lab.pod.netns);
  await Promise.all([app.close(), remote.close(), ztunnel.close()]);
  lab.close();
});

async function capture(changes: Partial<CaptureSpec> = {}): Promise<void> {
  const spec = specOf(lab, { excludeOutboundCidrs: [`${EXCLUDED}/32`], ...changes });
  await engine.apply(lab.pod.netns, spec, { sysctls: "" });
}

async function call(from: "pod" | "client", address: string, port: number, mark = 0): Promise<void> {
  const netns = lab[from].netns;
  const family = address.includes(":") ? 6 : 4;
  await Call.open(netns, family, address, port, { mark, timeout: 300 }).then(
    (one) => one.close(),
    () => undefined,
  );
}

/** What is told while `act` runs; its counts after the last of it. */
async function heard(count: number, act: () => Promise<void>): Promise<readonly Flow[]> {
  const batches: FlowBatch[] = [];
  const failures: unknown[] = [];
  const stop = engine.flows.open(
    (batch) => batches.push(batch),
    (error) => failures.push(error),
  );
  const flows = () => batches.flatMap((batch) => batch.flows);
  try {
    await act();
    await expect.poll(() => flows().length).toBeGreaterThanOrEqual(count);
  } finally {
    stop();
  }
  expect(failures).toEqual([]);
  expect(batches.map(({ lost, blindMs }) => lost + blindMs).filter((missed) => missed > 0)).toEqual([]);
  return flows();
}

/** Questions to a nameserver, `count` of them, each of them told as a flow. */
async function ask(count: number): Promise<void> {
  const socket = createSocket("udp4");
  const bound = once(socket, "listening");
  socket.bind({ fd: native().udpSocket(lab.pod.netns.fd, { family: 4, bind: { address: "0.0.0.0", port: 0 } }) });
  await bound;
  const sent = Array.from({ length: count }, () => new Promise((done) => socket.send("?", 53, lab.client.ipv4, done)));
  await Promise.all(sent);
  socket.close();
}

test.each<[string, string, () => Promise<void>]>([
  ["outbound_captured", "10.66.0.1:80", () => call("pod", lab.client.ipv4, 80)],
  ["outbound_captured", "fd66::1:80", () => call("pod", lab.client.ipv6, 80)],
  ["outbound_dns", "10.66.0.1:53", () => call("pod", lab.client.ipv4, 53)],
  ["outbound_local", "127.0.0.1:8080", () => call("pod", "127.0.0.1", 8080)],
  ["outbound_local", "fd66::2:8080", () => call("pod", lab.pod.ipv6, 8080)],
  ["outbound_excluded", `${EXCLUDED}:80`, () => call("pod", EXCLUDED, 80)],
  ["outbound_to_prober", "169.254.7.127:80", () => call("pod", "169.254.7.127", 80)],
  ["outbound_refused_self", "10.66.0.2:15001", () => call("pod", lab.pod.ipv4, 15_001)],
  ["outbound_ztunnel", "10.66.0.1:80", () => call("pod", lab.client.ipv4, 80, ZTUNNEL_MARK)],
  ["loop_refused", "10.66.0.2:15006", () => call("pod", lab.pod.ipv4, 15_006, ZTUNNEL_MARK)],
  ["inbound_captured", "10.66.0.2:8080", () => call("client", lab.pod.ipv4, 8080)],
  ["inbound_captured", "fd66::2:8080", () => call("client", lab.pod.ipv6, 8080)],
  ["inbound_hbone", "10.66.0.2:15008", () => call("client", lab.pod.ipv4, 15_008)],
])("%s to %s", async (word, destination, act) => {
  const flows = await heard(1, act);
  const [first] = flows.filter((flow) => flow.word === word);
  expect(first, flows.map((flow) => flow.word).join()).toMatchObject({ netns: engine.flows.keyOf(lab.pod.netns) });
  expect(`${first?.destination}:${first?.destinationPort}`).toBe(destination);
  const inbound = FLOW_WORDS[word]?.direction === "in";
  const own = destination.includes("::") ? "ipv6" : "ipv4";
  expect(first?.source).toBe(lab[inbound ? "client" : "pod"][own]);
  expect((first?.sourcePort ?? 0) > 0, "a source port is known when the SYN is seen").toBe(inbound);
  expect(Math.abs(Date.now() - (first?.at ?? 0))).toBeLessThan(5000);
});

test("what an annotation, a listener that is missing, or the way out of the mesh decides", async () => {
  await capture(BYPASSING);
  const words = async (act: () => Promise<void>) => (await heard(1, act)).map(({ word }) => word);
  expect(await words(() => call("client", lab.pod.ipv4, 8080))).toEqual(["inbound_bypassed"]);
  await capture();
  await ztunnel.closeListeners();
  expect(await words(() => call("client", lab.pod.ipv4, 8080))).toContain("inbound_no_listener");
  await engine.drain(lab.pod.netns, specOf(lab));
  expect(await words(() => call("client", lab.pod.ipv4, 8080))).toEqual(["inbound_draining"]);
  expect(await words(() => call("pod", lab.client.ipv4, 80))).toEqual(["outbound_draining"]);
});

test("nothing is told to nobody, and what is counted is the same", async () => {
  const [, before] = [await call("client", lab.pod.ipv4, 8080), engine.counters(lab.pod.netns)];
  const flows = await heard(1, () => call("client", lab.pod.ipv4, 8080));
  expect(flows.map(({ word }) => word)).toContain("inbound_captured");
  await call("client", lab.pod.ipv4, 8080);
  const ring = engine.node.bpf.events();
  expect(ring.read(1)).toEqual([]);
  ring.close();
  expect(before).toMatchObject({ inbound_captured: 1 });
  expect(engine.counters(lab.pod.netns)).toMatchObject({ inbound_captured: 3 });
});

test("a reader who dies is told no more: the lease ends by itself", async () => {
  const { bpf } = engine.node;
  const ring = bpf.events();
  try {
    bpf.tellUntil(process.hrtime.bigint() + 100_000_000n);
    await call("client", lab.pod.ipv4, 8080);
    expect(ring.read(10).map(({ verdict }) => verdict)).toContain("inbound_captured");
    await expect
      .poll(async () => {
        await call("client", lab.pod.ipv4, 8080);
        return ring.read(10).length;
      })
      .toBe(0);
    expect(LEASE_MS).toBeLessThanOrEqual(2000);
  } finally {
    bpf.tellUntil(0n);
    ring.close();
  }
});

test("told and lost together are all: with a ring that nobody empties, and with a reader", async () => {
  const { bpf } = engine.node;
  const asked = () => engine.counters(lab.pod.netns).outbound_dns ?? 0;
  const lostBefore = bpf.eventsLost();
  const ring = bpf.events();
  bpf.tellUntil(process.hrtime.bigint() + 60_000_000_000n);
  const before = asked();
  await ask(FLOOD);
  bpf.tellUntil(0n);
  let told = 0;
  for (let batch = ring.read(500); batch.length > 0; batch = ring.read(500)) {
    expect(batch.length).toBeLessThanOrEqual(500);
    told += batch.length;
  }
  ring.close();
  const lost = bpf.eventsLost() - lostBefore;
  expect(asked() - before).toBe(FLOOD);
  expect([told + lost, lost > 0]).toEqual([FLOOD, true]);

  let sum = 0;
  const stop = engine.flows.open(
    ({ flows, lost: missed }) => {
      sum += flows.filter(({ word }) => word === "outbound_dns").length + missed;
    },
    () => undefined,
  );
  await ask(FLOOD);
  await expect.poll(() => sum).toBe(FLOOD);
  stop();
});
