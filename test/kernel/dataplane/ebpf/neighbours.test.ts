// SPDX-License-Identifier: Apache-2.0
// Others on the node and in the pod: a socket load balancer above us, and whoever would like ztunnel's connections.
import { once } from "node:events";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { SPREAD_RANGE, ZTUNNEL_MARK, ZTUNNEL_PORT } from "../../../../src/core/constants.ts";
import { native } from "../../../../src/native/load.ts";
import { Child } from "../../../../src/sys/child.ts";
import { run } from "../../../../src/sys/exec.ts";
import { LabCgroups } from "../../../support/lab-bpf.ts";
import { specOf } from "../../../support/lab-dataplane.ts";
import { Call, EchoServer, outcome } from "../../../support/lab-peer.ts";
import { LabPrograms } from "../../../support/lab-programs.ts";
import { SplitNode } from "../../../support/lab-split-node.ts";
import { LabZtunnel } from "../../../support/lab-ztunnel.ts";
import { ipOf, NetnsLab } from "../../../support/netns-lab.ts";

const APP = 8080;
const SERVICE = 80;
const VIP = { 4: "10.66.200.200", 6: "fd66::200:200" } as const;

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

const capture = () => node.capture(lab.pod.netns, specOf(lab));

async function call(address: string, port: number) {
  const argv = ["lab-caller", "--", address, String(port)] as const;
  const [line = ""] = await programs.run(lab.pod.netns, node.pods, [...argv]);
  return JSON.parse(line);
}

/** Programs on the root cgroup that lead both VIPs to the remote, until the returned function is called. */
async function balance(tools: LabPrograms): Promise<() => Promise<void>> {
  const object = tools.file("lab-balancer.o");
  const source = join(import.meta.dirname, "../../../support/lab-balancer.bpf.c");
  const include = (await run(["cc", "-print-multiarch"], { timeoutMs: 5000 })).stdout.trim();
  const flags = ["-O2", "-g", "-target", "bpf", "-Wall", "-Werror", `-I/usr/include/${include}`];
  await run(["clang", ...flags, "-c", source, "-o", object], { timeoutMs: 60_000 });
  const pairs = ([4, 6] as const).flatMap((family) => [VIP[family], ipOf(lab.client, family)]);
  const child = new Child([tools.file("lab-balancer"), object, LabCgroups.root.path, ...pairs], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const { stdin, stdout } = child.process;
  if (stdin === null || stdout === null) throw new Error("no pipes");
  expect(String((await once(stdout, "data"))[0])).toBe("ready\n");
  return async () => {
    stdin.end();
    await child.exited;
  };
}

test("a socket load balancer on the root cgroup leaves ztunnel the service's address", async () => {
  using tools = await LabPrograms.compile(["lab-balancer"], ["-lbpf"]);
  const end = await balance(tools);
  try {
    for (const family of [4, 6] as const) {
      const direct = await call(VIP[family], SERVICE);
      expect(direct.peer, "it balances").toEqual({ address: ipOf(lab.client, family), port: SERVICE });
    }
    await capture();
    for (const family of [4, 6] as const) {
      const vip = { address: VIP[family], port: SERVICE };
      const captured = await call(vip.address, vip.port);
      expect(captured).toMatchObject({ outcome: "connected", peer: vip, greeting: { name: "remote" } });
      expect(captured.greeting.local.address, "ztunnel's own connection is balanced").toBe(ipOf(lab.client, family));
      expect(ztunnel.via(vip)).toEqual([15001]);
    }
    // What AMB-106 looks at: the order in which the kernel runs them for a pod.
    const names = (program: string) =>
      native()
        .bpfCgroupPrograms(node.pods.path, program)
        .map(({ name }) => name);
    expect(names("ambient_connect4")).toEqual(["ambient_connect", "balance4"]);
    expect(names("ambient_connect6")).toEqual(["ambient_connect", "balance6"]);
    const above = native().bpfCgroupPrograms(LabCgroups.root.path, "ambient_connect4");
    expect(above).toEqual([{ id: expect.any(Number), name: "balance4" }]);
  } finally {
    await end();
  }
});

describe.each([4, 6] as const)("IPv%i", (family) => {
  test.each([
    ["with ztunnel's mark", ZTUNNEL_MARK],
    ["without a mark", 0],
  ])("who joins ztunnel's listeners, with its uid and %s, gets nothing", async (_, mark) => {
    await capture();
    const [spread = ""] = SPREAD_RANGE[family].split("/");
    const joiners: number[] = [];
    for (const port of [ZTUNNEL_PORT.outbound, ZTUNNEL_PORT.inboundPlaintext]) {
      for (const address of ["::", family === 4 ? `::ffff:${spread}` : spread]) {
        const bind = { address, port };
        const options = { family: 6, bind, mark, reusePort: true, transparent: true, freebind: true } as const;
        joiners.push(await node.as(node.pods, () => native().tcpListen(lab.pod.netns.fd, options)));
      }
    }
    for (let i = 0; i < 20; i++) {
      expect((await call(ipOf(lab.client, family), SERVICE)).greeting.name).toBe("remote");
      expect(await outcome(Call.open(lab.client.netns, family, ipOf(lab.pod, family), APP))).toBe("app");
    }
    expect(joiners.map((joiner) => native().tcpAccept(joiner))).toEqual(joiners.map(() => -1));
    expect(ztunnel.accepted).toHaveLength(40);
    for (const joiner of joiners) native().close(joiner);
  });

  test("what ztunnel sends to its own private addresses is dropped where no hook could refuse it", async () => {
    await capture();
    const [spread = ""] = SPREAD_RANGE[family].split("/");
    const options = { mark: ZTUNNEL_MARK, timeout: 300 };
    for (const [address, port] of [
      [spread, 15001],
      [shadow(), 15001],
      [shadow(), APP],
    ] as const) {
      expect(await outcome(Call.open(lab.pod.netns, family, address, port, options))).toBe("ETIMEDOUT");
    }
    expect(ztunnel.accepted).toEqual([]);
  });

  const shadow = () => {
    const pod = node.engine.node.bpf.podRead(native().netnsCookie(lab.pod.netns.fd));
    return (family === 4 ? pod?.shadow4 : pod?.shadow6) ?? "";
  };
});
