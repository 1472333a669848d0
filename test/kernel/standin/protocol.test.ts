// SPDX-License-Identifier: Apache-2.0
// ZDS from ztunnel's side: every row of the table in ztunnel.md 1.4, over the real socket and netns.
import { writeFileSync } from "node:fs";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { native } from "../../../src/native/load.ts";
import { createNetns } from "../../../src/native/netns.ts";
import { ScratchDir } from "../../support/scratch-dir.ts";
import { type AgentConnection, TestAgent } from "./agent.ts";
import { meshOf } from "./mesh.ts";
import { TestNode, type TestPod } from "./pods.ts";
import { ZtunnelProcess } from "./process.ts";

let scratch: ScratchDir;
let node: TestNode;
let agent: TestAgent;
let ztunnel: ZtunnelProcess;
let zds: AgentConnection;
let a: TestPod;
let b: TestPod;

async function start(env: Record<string, string> = {}): Promise<void> {
  ztunnel = new ZtunnelProcess({ INPOD_UDS: agent.path, LOCAL_XDS_PATH: scratch.file("mesh.yaml"), ...env });
  zds = await agent.accept();
}

beforeEach(async () => {
  scratch = new ScratchDir();
  node = await TestNode.create("a", "b");
  a = node.pod("a");
  b = node.pod("b");
  writeFileSync(scratch.file("mesh.yaml"), meshOf(node, ["a", "b"]));
  agent = new TestAgent(scratch.file("zds.sock"));
});

afterEach(async () => {
  await ztunnel[Symbol.asyncDispose]();
  agent[Symbol.dispose]();
  node[Symbol.dispose]();
  scratch[Symbol.dispose]();
});

/** `protocol address:port mark` of everything that listens in a pod. */
function listeners(netns: number): string[] {
  const tcp = native().sockets(netns, { protocol: "tcp", states: [10] });
  const udp = native().sockets(netns, { protocol: "udp" });
  return [...tcp, ...udp]
    .map((each) => `${each.protocol} ${each.src}:${each.srcPort} ${each.mark.toString(16)}`)
    .sort();
}

const ALL = [
  "tcp 127.0.0.1:15053 539",
  "tcp ::1:15053 539",
  "tcp :::15001 539",
  "tcp :::15006 539",
  "tcp :::15008 539",
  "udp 127.0.0.1:15053 539",
  "udp ::1:15053 539",
];

describe("sockets of a pod", () => {
  it("exist when the add is acked, with ztunnel's addresses and mark", async () => {
    await start();
    expect(listeners(a.netns.fd)).toEqual([]);
    expect(await zds.add(a)).toBe("");
    expect(listeners(a.netns.fd)).toEqual(ALL);
  });

  it("leave ::1 out of DNS where lo has no IPv6", async () => {
    native().sysctlSet(a.netns.fd, "net/ipv6/conf/lo/disable_ipv6", "1");
    await start();
    expect(await zds.add(a)).toBe("");
    expect(listeners(a.netns.fd)).toEqual(ALL.filter((each) => !each.includes(" ::1:15053")));
  });

  it("are IPv4 only with IPV6_ENABLED=false", async () => {
    await start({ IPV6_ENABLED: "false" });
    expect(await zds.add(a)).toBe("");
    expect(listeners(a.netns.fd)).toEqual([
      "tcp 0.0.0.0:15001 539",
      "tcp 0.0.0.0:15006 539",
      "tcp 0.0.0.0:15008 539",
      "tcp 127.0.0.1:15053 539",
      "udp 127.0.0.1:15053 539",
    ]);
  });

  it("can be had a second time by a second ztunnel, and not by a stranger without SO_REUSEPORT", async () => {
    await start();
    expect(await zds.add(a)).toBe("");
    const taken = () => native().tcpListen(a.netns.fd, { family: 6, bind: { address: "::", port: 15001 } });
    expect(taken).toThrow("EADDRINUSE");
    await using second = new ZtunnelProcess({ INPOD_UDS: agent.path, LOCAL_XDS_PATH: scratch.file("mesh.yaml") });
    const other = await agent.accept();
    expect(await other.add(a)).toBe("");
    expect(listeners(a.netns.fd)).toEqual([...ALL, ...ALL].sort());
    second.signal("SIGKILL");
  });
});

describe("messages", () => {
  it("ready after the snapshot, not before", async () => {
    await start();
    expect(await zds.add(a)).toBe("");
    expect(await ztunnel.readiness()).toEqual({ status: 500, body: "not ready, pending: workload proxy manager\n" });
    expect(await zds.snapshotSent()).toBe("");
    expect(await ztunnel.readiness()).toEqual({ status: 200, body: "ready\n" });
    expect(await ztunnel.workloadState()).toMatchObject({
      "uid-a": {
        state: "Up",
        connections: { inbound: [], outbound: [] },
        info: { name: "a", namespace: "default", serviceAccount: "a-sa" },
      },
    });
  });

  it("an add again changes nothing, with another netns it moves the proxy", async () => {
    await start();
    await zds.snapshotSent();
    expect(await zds.add(a)).toBe("");
    expect(await zds.add(a)).toBe("");
    expect(listeners(a.netns.fd)).toEqual(ALL);
    expect(await zds.add(a, b.netns.fd)).toBe("");
    expect(listeners(b.netns.fd)).toEqual(ALL);
    await ztunnel.until(
      async () => listeners(a.netns.fd),
      (list) => list.length === 0,
    );
  });

  it("del ends a proxy, of an unknown uid is fine", async () => {
    await start();
    await zds.snapshotSent();
    await zds.add(a);
    expect(await zds.del(b)).toBe("");
    expect(await zds.del(a)).toBe("");
    await ztunnel.until(
      async () => listeners(a.netns.fd),
      (list) => list.length === 0,
    );
    await ztunnel.until(
      () => ztunnel.workloadState(),
      (state) => Object.keys(state).length === 0,
    );
  });

  it("del before the snapshot only takes the protection away", async () => {
    await start();
    await zds.add(a);
    await zds.add(b);
    expect(await zds.del(a)).toBe("");
    expect(listeners(a.netns.fd)).toEqual(ALL);
    expect(await zds.snapshotSent()).toBe("");
    await ztunnel.until(
      async () => listeners(a.netns.fd),
      (list) => list.length === 0,
    );
    expect(listeners(b.netns.fd)).toEqual(ALL);
  });

  it("proxies outlive the agent; the next snapshot ends those it neither adds nor keeps", async () => {
    await start();
    await zds.add(a);
    await zds.add(b);
    await zds.snapshotSent();
    zds.close();
    zds = await agent.accept();
    expect(listeners(a.netns.fd)).toEqual(ALL);
    expect(await ztunnel.readiness()).toMatchObject({ status: 500 });
    expect(await zds.keep(b)).toBe("");
    expect(await zds.snapshotSent()).toBe("");
    await ztunnel.until(
      async () => listeners(a.netns.fd),
      (list) => list.length === 0,
    );
    expect(listeners(b.netns.fd)).toEqual(ALL);
    expect(await ztunnel.readiness()).toMatchObject({ status: 200 });
  });
});

describe("a proxy that can't start", () => {
  it("is nacked, pending and tried again every 5 s", async () => {
    await start();
    await zds.snapshotSent();
    const squatter = native().tcpListen(a.netns.fd, { family: 4, bind: { address: "0.0.0.0", port: 15006 } });
    const error = await zds.add(a);
    expect(error).toContain("failure to start proxy : Bind([::]:15006, Os { code: 98, kind: AddrInUse");
    // What was bound before it is given back, by a real ztunnel a moment after the nack.
    await ztunnel.until(
      async () => listeners(a.netns.fd),
      (list) => list.join() === "tcp 0.0.0.0:15006 0",
    );
    expect(await ztunnel.workloadState()).toMatchObject({ "uid-a": { state: "Pending" } });
    // Others go on meanwhile, and show that ztunnel is not ready.
    expect(await zds.add(b)).toBe("");
    expect(await ztunnel.readiness()).toMatchObject({ status: 500 });
    native().close(squatter);
    const began = performance.now();
    await ztunnel.until(
      () => ztunnel.readiness(),
      ({ status }) => status === 200,
    );
    expect(performance.now() - began).toBeLessThan(6000);
    expect(listeners(a.netns.fd)).toEqual(ALL);
    expect(await ztunnel.workloadState()).toMatchObject({ "uid-a": { state: "Up" } });
  });

  it("takes over the netns of a later add, and is forgotten by a del", async () => {
    await start();
    await zds.snapshotSent();
    const squatter = native().tcpListen(a.netns.fd, { family: 4, bind: { address: "0.0.0.0", port: 15001 } });
    expect(await zds.add(a)).toContain("AddrInUse");
    const fresh = createNetns();
    expect(await zds.add(a, fresh.fd)).toBe("");
    expect(listeners(fresh.fd)).toEqual(ALL);
    expect(await ztunnel.readiness()).toMatchObject({ status: 200 });
    expect(await zds.del(a)).toBe("");
    expect(await zds.add(a)).toContain("AddrInUse");
    expect(await zds.del(a)).toBe("");
    expect(await ztunnel.readiness()).toMatchObject({ status: 200 });
    native().close(squatter);
    fresh.close();
  });

  it("says so when the fd is no network namespace", async () => {
    await start();
    await zds.snapshotSent();
    const squatter = native().udpSocket(a.netns.fd, { family: 4 });
    expect(await zds.add(a, squatter)).toContain("failure to start proxy : ");
    native().close(squatter);
    expect(await zds.add(b)).toBe("");
  });
});

describe("what ztunnel dies of", () => {
  const fatal: readonly (readonly [string, (zds: AgentConnection) => Promise<string>, string])[] = [
    ["a keep after the snapshot", (zds) => zds.keep(a), "pod keep received after snapshot"],
    ["a second snapshot", (zds) => zds.snapshotSent(), "pod snapshot received already"],
    [
      "an add without workload_info",
      (zds) => zds.ask(Buffer.from("0a040a027531", "hex"), a.netns.fd),
      "workload_info is required but not present",
    ],
  ];
  it.each(fatal)("%s: nack, then exit 1", async (_what, act, text) => {
    await start();
    await zds.snapshotSent();
    const error = await act(zds);
    expect(error).toContain("failure to process message : ProtocolError(");
    expect(error).toContain(text);
    expect(await ztunnel.exited).toBe(1);
  });
});

describe("what ztunnel reconnects over", () => {
  const unreadable: readonly (readonly [string, () => Buffer, boolean])[] = [
    ["a payload it does not know", () => Buffer.from("22020a00", "hex"), false],
    ["bytes that are no protobuf", () => Buffer.from("0aff", "hex"), false],
    ["an add without fd", () => Buffer.from("0a110a027531120b0a016e12026e731a027361", "hex"), false],
    ["a del with fd", () => Buffer.from("120412027531", "hex"), true],
    ["a message of 1025 bytes", () => Buffer.concat([Buffer.from("0afe07", "hex"), Buffer.alloc(1022, 0x20)]), false],
  ];
  it.each(unreadable)("%s: nack, then a new connection at once", async (_what, message, withFd) => {
    await start();
    await zds.add(a);
    expect(await zds.ask(message(), withFd ? b.netns.fd : undefined)).toContain("failure to read message : ");
    await zds.end();
    zds = await agent.accept();
    expect(listeners(a.netns.fd)).toEqual(ALL);
    expect(await zds.keep(a)).toBe("");
    expect(await zds.snapshotSent()).toBe("");
  });

  it("an agent that is away: retries until it is back", async () => {
    await start();
    await zds.add(a);
    await zds.snapshotSent();
    agent[Symbol.dispose]();
    await ztunnel.line((line) => line.includes("failed to connect"));
    agent = new TestAgent(scratch.file("zds.sock"));
    zds = await agent.accept();
    expect(listeners(a.netns.fd)).toEqual(ALL);
    expect(await zds.keep(a)).toBe("");
    expect(await zds.snapshotSent()).toBe("");
    expect(listeners(a.netns.fd)).toEqual(ALL);
  });
});

it("SIGTERM: the agent sees the end at once, the listeners go, the exit status is 0", async () => {
  await start();
  await zds.add(a);
  await zds.snapshotSent();
  ztunnel.signal("SIGTERM");
  await zds.end();
  expect(await ztunnel.exited).toBe(0);
  expect(listeners(a.netns.fd)).toEqual([]);
});
