// SPDX-License-Identifier: Apache-2.0
// Ways in which an application may connect besides connect() on a fresh blocking socket. Pods and ztunnel are in
// cgroups of their own; each caller is a process in the pods' one.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { ZTUNNEL_MARK } from "../../../../src/core/constants.ts";
import type { CaptureSpec } from "../../../../src/core/ports/dataplane.ts";
import type { Endpoint } from "../../../../src/native/binding.ts";
import { native } from "../../../../src/native/load.ts";
import { ExecError } from "../../../../src/sys/exec.ts";
import { specOf } from "../../../support/lab-dataplane.ts";
import { canonical, EchoServer, type Greeting } from "../../../support/lab-peer.ts";
import { LabPrograms } from "../../../support/lab-programs.ts";
import { SplitNode } from "../../../support/lab-split-node.ts";
import { LabZtunnel } from "../../../support/lab-ztunnel.ts";
import { inNetns, ipOf, NetnsLab } from "../../../support/netns-lab.ts";

const APP = 8080;
const SERVICE = 80;
const URING_REFUSED = 77;

interface Told {
  readonly outcome: string;
  readonly peer?: Endpoint;
  readonly own?: Endpoint;
  readonly greeting?: Greeting;
  readonly echo?: string;
}

let node: SplitNode;
let programs: LabPrograms;
let lab: NetnsLab;
let ztunnel: LabZtunnel;
const servers: EchoServer[] = [];

beforeAll(async () => {
  programs = await LabPrograms.compile(["lab-caller"]);
  node = await SplitNode.start();
});
afterAll(() => {
  node.close();
  programs[Symbol.dispose]();
});
beforeEach(async () => {
  lab = NetnsLab.create();
  ztunnel = await LabZtunnel.start(lab.pod.netns);
  servers.push(
    await EchoServer.start(lab.pod.netns, "app", { family: 6, bind: { address: "::", port: APP } }),
    await EchoServer.start(lab.client.netns, "remote", { family: 6, bind: { address: "::", port: SERVICE } }),
  );
});
afterEach(async () => {
  for (const server of servers.splice(0)) await server.close();
  await ztunnel.close();
  lab.close();
});

const capture = (changes: Partial<CaptureSpec> = {}) => node.capture(lab.pod.netns, specOf(lab, changes));

async function call(options: readonly string[], ...to: readonly Endpoint[]): Promise<Told[]> {
  const destinations = to.flatMap(({ address, port }) => [address, String(port)]);
  const lines = await programs.run(lab.pod.netns, node.pods, ["lab-caller", ...options, "--", ...destinations]);
  return lines.map((line) => JSON.parse(line));
}

/** One of the pod's TCP counters. */
async function counted(name: string): Promise<number> {
  const [names = "", values = ""] = (await inNetns(lab.pod.netns, "cat", "/proc/net/netstat")).split("\n");
  return Number(values.split(" ")[names.split(" ").indexOf(name)]);
}

describe.each([4, 6] as const)("IPv%i", (family) => {
  const remote = () => ({ address: ipOf(lab.client, family), port: SERVICE });
  const podIp = () => ipOf(lab.pod, family);
  const loopback = { address: family === 4 ? "127.0.0.1" : "::1", port: APP };

  /** The application sees the remote where it called it; ztunnel was told so and sees the pod's address. */
  function expectCaptured([told]: readonly Told[], shown = remote()): void {
    expect(told).toMatchObject({ outcome: "connected", peer: shown, greeting: { name: "remote", local: remote() } });
    expect(canonical(told?.own ?? loopback).address).toBe(podIp());
    const peer = told?.own === undefined ? undefined : canonical(told.own);
    expect(ztunnel.accepted).toEqual([{ port: 15001, peer, original: remote() }]);
  }

  const plain = [[], ["nonblocking"], ["device=eth0"], ...(family === 6 ? [["v6only"]] : [])];
  test.each(plain.map((options) => ({ how: options.join(" ") || "plainly", options })))(
    "a socket connected $how is captured and works",
    async ({ options }) => {
      await capture();
      expectCaptured(await call(options, remote()));
    },
  );

  test("a socket connected by io_uring is captured and works", async ({ skip }) => {
    await capture();
    const told = await call(["uring"], remote()).catch((error: unknown) => {
      if (error instanceof ExecError && error.exitCode === URING_REFUSED) return undefined;
      throw error;
    });
    if (told === undefined) skip("this kernel refuses io_uring");
    else expectCaptured(told);
  });

  test("a socket bound to the pod's address is captured and works", async () => {
    await capture();
    expectCaptured(await call([`bound=${podIp()}`], remote()));
  });

  test("TCP Fast Open: what was sent with the SYN arrives once, by ztunnel", async () => {
    // Client and server, data without a cookie, every listener from its listen() on.
    native().sysctlSet(lab.pod.netns.fd, "net/ipv4/tcp_fastopen", String(0x607));
    await ztunnel.close();
    ztunnel = await LabZtunnel.start(lab.pod.netns);
    await capture();
    const told = await call(["fastopen"], remote());
    expectCaptured(told);
    expect(told[0]?.echo).toBe("early");
    expect(await counted("TCPFastOpenPassive")).toBe(1);
  });

  test("MPTCP is captured and works, but getpeername() shows a local address", async () => {
    await capture();
    const [told] = await call(["mptcp"], remote());
    expect(told).toMatchObject({ outcome: "connected", greeting: { name: "remote", local: remote() } });
    expect(ztunnel.accepted.map(({ port, original }) => ({ port, original }))).toEqual([
      { port: 15001, original: remote() },
    ]);
    // The hook doesn't see the outer socket. When a kernel shows it, this is to be told in the documents.
    expect(told?.peer).not.toEqual(remote());
  });

  test("one socket for several destinations, loopback among them, is told the truth about each", async () => {
    const other = { address: lab.remote(family, family === 4 ? "10.66.0.77" : "fd66::77"), port: SERVICE };
    await capture();
    const told = await call(["reused"], remote(), loopback, other, { address: podIp(), port: APP }, remote());
    expect(told.map(({ peer, greeting }) => ({ peer, name: greeting?.name }))).toEqual([
      { peer: remote(), name: "remote" },
      { peer: loopback, name: "app" },
      { peer: other, name: "remote" },
      { peer: { address: podIp(), port: APP }, name: "app" },
      { peer: remote(), name: "remote" },
    ]);
    expect(ztunnel.accepted.map(({ original }) => original)).toEqual([remote(), other, remote()]);
  });

  test("the unspecified address means loopback: direct, whatever it is written as", async () => {
    await capture();
    for (const address of family === 4 ? ["0.0.0.0"] : ["::", "::ffff:0.0.0.0", "::ffff:127.0.0.1"]) {
      expect(await call([], { address, port: APP })).toMatchObject([
        { outcome: "connected", greeting: { name: "app" } },
      ]);
    }
    expect(ztunnel.accepted).toEqual([]);
  });

  test("an application with ztunnel's mark is captured like any other", async () => {
    await capture();
    expectCaptured(await call([`mark=${ZTUNNEL_MARK}`], remote()));
  });

  test("a source address that is not the pod's own leads nowhere, neither past ztunnel nor into it", async () => {
    await capture({ excludeOutboundCidrs: [`${remote().address}/${family === 4 ? 32 : 128}`] });
    const outside = { address: family === 4 ? "192.0.2.9" : "2001:db8::9", port: SERVICE };
    for (const source of [loopback.address, ...(family === 4 ? [shadow()] : [])]) {
      const [captured] = await call([`bound=${source}`, "nonblocking"], outside);
      expect(captured?.outcome).toBe("ECONNREFUSED");
    }
    expect(ztunnel.accepted).toEqual([]);
    expect((await call([], remote()))[0]?.greeting?.name, "the excluded destination is reached").toBe("remote");
    if (family === 4) {
      const [excluded] = await call([`bound=${shadow()}`, "nonblocking", "wait=300"], remote());
      expect(excluded?.outcome, "but not from the shadow").toBe("ETIMEDOUT");
    }
  });

  const shadow = () => node.engine.node.bpf.podRead(native().netnsCookie(lab.pod.netns.fd))?.shadow4 ?? "";
});

test("an IPv4 destination of an IPv6 socket is captured and shown mapped", async () => {
  await capture();
  const address = `::ffff:${lab.client.ipv4}`;
  const [told] = await call([], { address, port: SERVICE });
  expect(told).toMatchObject({
    outcome: "connected",
    peer: { address, port: SERVICE },
    own: { address: `::ffff:${lab.pod.ipv4}` },
    greeting: { name: "remote", local: { address: lab.client.ipv4, port: SERVICE } },
  });
  expect(ztunnel.via({ address: lab.client.ipv4, port: SERVICE })).toEqual([15001]);
});
