// SPDX-License-Identifier: Apache-2.0
// What is missing or lost ends in a refusal: nothing goes past ztunnel, and ztunnel never calls itself. Pods and
// ztunnel share the root cgroup here, as on a hybrid host.
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { PROBE_SNAT_IPV4, PROBE_SNAT_IPV6, SPREAD_RANGE, ZTUNNEL_MARK } from "../../../../src/core/constants.ts";
import type { NodeDataplane } from "../../../../src/dataplane/dataplane.ts";
import { SCHEMA } from "../../../../src/dataplane/ebpf/node.ts";
import type { BpfPod, BpfPodLists } from "../../../../src/native/bpf.ts";
import { isNativeError } from "../../../../src/native/fault.ts";
import { native } from "../../../../src/native/load.ts";
import { LabCgroups, labBpffs, labEbpf } from "../../../support/lab-bpf.ts";
import { specOf, startDataplane, stateOf } from "../../../support/lab-dataplane.ts";
import { EBPF } from "../../../support/lab-engines.ts";
import { Call, EchoServer, outcome } from "../../../support/lab-peer.ts";
import { LabPrograms } from "../../../support/lab-programs.ts";
import { LabZtunnel } from "../../../support/lab-ztunnel.ts";
import { ipOf, NetnsLab } from "../../../support/netns-lab.ts";

const APP = 8080;
const SERVICE = 80;
const ENDED = ["ECONNREFUSED", "ECONNRESET", "closed"];

const engine = labEbpf();
let dataplane: NodeDataplane;
let programs: LabPrograms;
let lab: NetnsLab;
let ztunnel: LabZtunnel;
let app: EchoServer;
let remote: EchoServer;
let reached: string[];

beforeAll(async () => {
  programs = await LabPrograms.compile(["lab-forget"], ["-lbpf"]);
  dataplane = await startDataplane(native(), { ...EBPF, make: () => [engine] });
});
afterAll(() => {
  dataplane.close();
  programs[Symbol.dispose]();
});
beforeEach(async () => {
  lab = NetnsLab.create();
  ztunnel = await LabZtunnel.start(lab.pod.netns);
  app = await EchoServer.start(lab.pod.netns, "app", { family: 6, bind: { address: "::", port: APP } });
  remote = await EchoServer.start(lab.client.netns, "remote", { family: 6, bind: { address: "::", port: SERVICE } });
  reached = [];
  app.server.on("connection", () => reached.push("app"));
  remote.server.on("connection", () => reached.push("remote"));
});
afterEach(async () => {
  await app.close();
  await remote.close();
  await ztunnel.close();
  lab.close();
});

const capture = () => dataplane.capture(lab.pod.netns, specOf(lab));
const counters = () => engine.counters(lab.pod.netns);
/** Destinations that ztunnel has not asked for, of which there is none afterwards. */
const forget = () => {
  const map = join(labBpffs(), "ambient-cni", `v${SCHEMA}`, "maps/handshakes");
  return programs.run(lab.pod.netns, LabCgroups.root, ["lab-forget", map]);
};

describe.each([4, 6] as const)("IPv%i", (family) => {
  const fromPod = (options = {}) => Call.open(lab.pod.netns, family, ipOf(lab.client, family), SERVICE, options);
  const fromClient = () => Call.open(lab.client.netns, family, ipOf(lab.pod, family), APP);

  test("without ztunnel's listeners connections are refused, both ways", async () => {
    await capture();
    await ztunnel.close();
    expect(await outcome(fromPod())).toBe("ECONNREFUSED");
    expect(await outcome(fromClient())).toBe("ECONNREFUSED");
    expect(reached).toEqual([]);
    expect(counters().inbound_no_listener).toBe(1);
  });

  test("connections whose destination was forgotten before ztunnel asked are ended", async () => {
    await capture();
    await ztunnel.close();
    const options = { family: 6, bind: { address: "::", port: 15001 }, mark: ZTUNNEL_MARK, reusePort: true } as const;
    const deaf = native().tcpListen(lab.pod.netns.fd, { ...options, transparent: true });
    await forget();
    const waiting = await Promise.all(Array.from({ length: 8 }, () => fromPod()));
    expect(await forget()).toEqual(["8"]);
    ztunnel = await LabZtunnel.start(lab.pod.netns);
    native().close(deaf);
    for (const call of waiting) expect(ENDED).toContain(await outcome(Promise.resolve(call)));
    expect(ztunnel.accepted.map(({ original }) => original.port)).toEqual(waiting.map(() => 15001));
    expect(reached).toEqual([]);
    expect(counters().outbound_lost_destination).toBe(8);
  });

  test("no destination is kept that ztunnel has asked for, or never asks for: a nameserver's over TCP", async () => {
    await capture();
    await forget();
    expect(await outcome(fromPod())).toBe("remote");
    const nameserver = family === 4 ? "10.66.0.53" : "fd66::53";
    const question = await Call.open(lab.pod.netns, family, nameserver, 53);
    expect(await question.echo("question")).toBe("answer:question");
    expect(await forget()).toEqual(["0"]);
    question.close();
  });

  test("without an answer about the destination ztunnel does not call itself", async () => {
    await capture();
    expect(engine.node.bpf.pins("ztunnel")).toHaveLength(1);
    for (const pin of engine.node.bpf.pins("ztunnel")) engine.node.bpf.unpin(`ztunnel/${pin}`);
    // The kernel lets go of an unpinned link some time later.
    await expect.poll(() => outcome(fromPod())).not.toBe("remote");
    const [accepted, refused, before] = [ztunnel.accepted.length, counters().loop_refused ?? 0, reached.length];
    for (let i = 0; i < 5; i++) expect(ENDED).toContain(await outcome(fromPod()));
    expect(ztunnel.accepted, "one each, not one that leads to the next").toHaveLength(accepted + 5);
    expect(counters().loop_refused).toBe(refused + 5);
    expect(reached).toHaveLength(before);
    engine.collect();
    expect(dataplane.observe(lab.pod.netns, specOf(lab))).toMatchObject({
      mode: "differs",
      differences: [expect.stringContaining("the programs for ztunnel are not attached to its cgroup")],
    });
    await capture();
    expect(await outcome(fromPod())).toBe("remote");
  });

  test("where ztunnel shares its cgroup with pods its mark alone tells it, and whoever wears that is let out", async () => {
    await capture();
    expect(engine.node.ztunnels.toldByCgroup).toBe(false);
    expect(await outcome(fromPod({ mark: ZTUNNEL_MARK }))).toBe("remote");
    expect(ztunnel.accepted).toEqual([]);
    expect(counters().outbound_captured).toBe(0);
  });

  test("ztunnel's private addresses are refused to ztunnel, and lead an application to nobody", async () => {
    await capture();
    const [spread = ""] = SPREAD_RANGE[family].split("/");
    const call = (address: string, port: number, options = {}) =>
      outcome(Call.open(lab.pod.netns, family, address, port, options));
    for (const address of [spread, shadow()]) {
      expect(await call(address, 15001, { mark: ZTUNNEL_MARK })).toBe("ECONNREFUSED");
      expect(await call(address, APP)).toBe("ECONNREFUSED");
    }
    expect(ztunnel.accepted).toEqual([]);
    // Allowed, as another generation of the hooks may have led it here; nobody knows where it was meant to go.
    expect(ENDED).toContain(await call(spread, 15001));
    expect(ztunnel.accepted.map(({ original }) => original.port)).toEqual([15001]);
    expect(reached).toEqual([]);
  });

  const shadow = () => {
    const pod = engine.node.bpf.podRead(native().netnsCookie(lab.pod.netns.fd));
    return (family === 4 ? pod?.shadow4 : pod?.shadow6) ?? "";
  };
});

test("a pod for which there is no room is not captured, and left as it was", async () => {
  const before = await stateOf(lab.pod.netns);
  const { bpf } = engine.node;
  const pods: bigint[] = [];
  let full: unknown;
  while (full === undefined) {
    const cookie = (1n << 48n) + BigInt(pods.length);
    try {
      bpf.podWrite(cookie, NOBODY);
      pods.push(cookie);
    } catch (error) {
      full = error;
    }
  }
  expect(isNativeError(full) ? full.code : full).toBe("E2BIG");
  expect(pods.length).toBeGreaterThan(4000);
  await expect(capture()).rejects.toThrow(/E2BIG/);
  expect(await stateOf(lab.pod.netns)).toBe(before);
  for (const cookie of pods) bpf.podDelete(cookie);
  expect(await capture()).toBe("ebpf");
});

const NOBODY: BpfPod & BpfPodLists = {
  ip4: "",
  ip6: "",
  shadow4: "",
  shadow6: "",
  probe4: PROBE_SNAT_IPV4,
  probe6: PROBE_SNAT_IPV6,
  ipv6: false,
  inbound: false,
  dns: false,
  dnsListed: false,
  draining: false,
  retiring: false,
  beside: false,
  sysctls: "",
  plan: "",
  locals: [],
  nameservers: [],
  excludes: [],
};
