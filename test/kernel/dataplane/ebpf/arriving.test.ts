// SPDX-License-Identifier: Apache-2.0
// What comes from outside in shapes, or to addresses, that a first version let pass to the application.
import { createSocket, type Socket } from "node:dgram";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { PROBE_SNAT_IPV4, PROBE_SNAT_IPV6 } from "../../../../src/core/constants.ts";
import type { CaptureSpec } from "../../../../src/core/ports/dataplane.ts";
import type { NodeDataplane } from "../../../../src/dataplane/dataplane.ts";
import { isBehindEbpf } from "../../../../src/dataplane/proxied.ts";
import type { SocketOptions } from "../../../../src/native/binding.ts";
import { native } from "../../../../src/native/load.ts";
import type { HeldNetns } from "../../../../src/native/netns.ts";
import { LabCgroups, labEbpf } from "../../../support/lab-bpf.ts";
import { specOf, startDataplane } from "../../../support/lab-dataplane.ts";
import { EBPF } from "../../../support/lab-engines.ts";
import { Call, EchoServer, outcome } from "../../../support/lab-peer.ts";
import { LabPrograms } from "../../../support/lab-programs.ts";
import { LabZtunnel } from "../../../support/lab-ztunnel.ts";
import { inNetns, ipOf, NetnsLab } from "../../../support/netns-lab.ts";

const APP = 8080;
const SERVICE = 80;
const CONTROL_PORT = 9999;
/** A request that waits for its third packet. */
const SYN_RECV = 3;

interface Frame {
  readonly shape: string;
  readonly to?: string;
}

const engine = labEbpf();
let dataplane: NodeDataplane;
let programs: LabPrograms;
let lab: NetnsLab;
let ztunnel: LabZtunnel;
let app: EchoServer;

beforeAll(async () => {
  programs = await LabPrograms.compile(["lab-frame"]);
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
});
afterEach(async () => {
  await app.close();
  await ztunnel.close();
  lab.close();
});

const capture = (changes: Partial<CaptureSpec> = {}) => dataplane.capture(lab.pod.netns, specOf(lab, changes));
const counters = () => engine.counters(lab.pod.netns);
const nobody = { 4: "10.66.0.77", 6: "fd66::77" } as const;

/** Sends SYNs of nobody's into the pod. Returns who answers each: "app", "ztunnel", or nothing. */
async function answered(family: 4 | 6, frames: readonly Frame[]): Promise<string[]> {
  const { mac = "" } =
    native()
      .links(lab.pod.netns.fd)
      .find(({ name }) => name === "eth0") ?? {};
  const line = ({ shape, to }: Frame, port: number) =>
    `${shape} 0 ${nobody[family]} ${port} ${to ?? ipOf(lab.pod, family)} ${APP}`;
  const lines = [...frames.map((frame, i) => line(frame, 10_000 + i)), line({ shape: "ack" }, CONTROL_PORT)];
  const argv = ["lab-frame", "eth0", `/proc/${process.pid}/fd/${lab.client.netns.fd}`, "veth0", mac] as const;
  const arrived = await programs.run(lab.pod.netns, LabCgroups.root, [...argv], lines);
  expect(arrived, "all of them come as far as the pod's interface").toHaveLength(lines.length);
  return native()
    .sockets(lab.pod.netns.fd, { protocol: "tcp", states: [SYN_RECV] })
    .map((socket) => `${frames[socket.dstPort - 10_000]?.shape} ${isBehindEbpf(socket) ? "ztunnel" : "app"}`)
    .sort();
}

describe.each([4, 6] as const)("IPv%i", (family) => {
  const podIp = () => ipOf(lab.pod, family);
  const whole =
    family === 4 ? ["plain", "synfin", "options", "tag"] : ["plain", "options", "hopbyhop", "atomic", "chain", "tag"];
  const cut = ["fragment", "short", "short-options"];
  const frames = () => [...whole, ...cut, "tags"].map((shape) => ({ shape }));
  /** The kernel drops a SYN with FIN itself. */
  const taken = whole.filter((shape) => shape !== "synfin");

  test("without capture the application answers each whole SYN", async () => {
    expect(await answered(family, frames())).toEqual([...taken, "tags"].map((shape) => `${shape} app`).sort());
  });

  test("captured, ztunnel does; a cut one, or one behind two tags, nobody", async () => {
    await capture();
    expect(await answered(family, frames())).toEqual(taken.map((shape) => `${shape} ztunnel`).sort());
    expect(counters().inbound_unparsed).toBe(cut.length);
  });

  test("nor does anybody answer at the shadow, at a spread address or at one that is not the pod's own", async () => {
    await capture();
    const others = native()
      .routes(lab.pod.netns.fd, family, 255)
      .map(({ dst }) => dst)
      .filter((dst) => (family === 4 ? /^255\.(?!255\.)/ : /^fd16:9254:7127:[12]:/).test(dst));
    expect(others).toHaveLength(2);
    // Appears after capture: until the agent has made an nftables pod of it, nothing leads past ztunnel.
    const late = family === 4 ? "10.66.9.9" : "fd66::99";
    native().addressAdd(lab.pod.netns.fd, "eth0", late, family === 4 ? 16 : 64);
    if (family === 6) others.push(await linkLocal());
    const to = [...others, late].map((address) => ({ shape: "plain", to: address }));
    expect(await answered(family, to)).toEqual([]);
    expect((await answered(family, [{ shape: "plain" }])).at(-1), "while the pod's own address is").toBe(
      "plain ztunnel",
    );
  });

  test("no datagram leaves from the shadow", async () => {
    await capture();
    const heard: string[] = [];
    const bind = { address: ipOf(lab.client, family), port: 7 };
    const listener = datagram(lab.client.netns, { family, bind });
    listener.on("message", (message) => heard.push(message.toString()));
    const sources = [shadowOf(family), podIp()];
    const senders = sources.map((address) =>
      datagram(lab.pod.netns, { family, bind: { address, port: 0 }, freebind: true }),
    );
    for (const [i, sender] of senders.entries()) {
      await new Promise((resolve) => sender.send(sources[i] ?? "", bind.port, bind.address, resolve));
    }
    // The first neighbour solicitation of a new interface may be lost, and is repeated after a second.
    await expect.poll(() => heard, { timeout: 5000 }).toContain(podIp());
    expect(heard).toEqual([podIp()]);
    for (const socket of [listener, ...senders]) socket.close();
  });

  test.each(["0", "2"])(
    "with SYN cookies %s every connection is answered through ztunnel, and probes by the app",
    async (cookies) => {
      native().sysctlSet(lab.pod.netns.fd, "net/ipv4/tcp_syncookies", cookies);
      await capture();
      const calls = await Promise.all(
        Array.from({ length: 20 }, () => Call.open(lab.client.netns, family, podIp(), APP)),
      );
      for (const call of calls) {
        const { name, remote } = await call.greeting();
        expect({ name, remote }).toEqual({
          name: "app",
          remote: { address: ipOf(lab.client, family), port: remote.port },
        });
        expect(await call.echo("alive")).toBe("alive");
        call.close();
      }
      expect(ztunnel.accepted.map(({ port }) => port)).toEqual(calls.map(() => 15006));
      const bind = { address: "::", port: SERVICE };
      const remote = await EchoServer.start(lab.client.netns, "remote", { family: 6, bind });
      const to = { address: ipOf(lab.client, family), port: SERVICE };
      expect(await outcome(Call.open(lab.pod.netns, family, to.address, to.port))).toBe("remote");
      expect(ztunnel.via(to)).toEqual([15001]);
      await remote.close();
      const address = family === 4 ? PROBE_SNAT_IPV4 : PROBE_SNAT_IPV6;
      native().addressAdd(lab.client.netns.fd, "veth0", address, family === 4 ? 32 : 128);
      await inNetns(lab.pod.netns, "ip", family === 4 ? "-4" : "-6", "route", "replace", address, "dev", "eth0");
      const probe = Call.open(lab.client.netns, family, podIp(), APP, { bind: { address, port: 0 } });
      expect(await outcome(probe)).toBe("app");
      expect(ztunnel.accepted).toHaveLength(calls.length + 1);
    },
  );

  test("with SYN cookies a pod that drains is reached directly", async () => {
    native().sysctlSet(lab.pod.netns.fd, "net/ipv4/tcp_syncookies", "2");
    await capture();
    await dataplane.drain(lab.pod.netns, specOf(lab));
    expect(await outcome(Call.open(lab.client.netns, family, podIp(), APP))).toBe("app");
    expect(ztunnel.accepted).toEqual([]);
  });
});

function datagram(netns: HeldNetns, options: SocketOptions): Socket {
  const socket = createSocket(options.family === 4 ? "udp4" : "udp6");
  socket.bind({ fd: native().udpSocket(netns.fd, options) });
  return socket;
}

function shadowOf(family: 4 | 6): string {
  const pod = engine.node.bpf.podRead(native().netnsCookie(lab.pod.netns.fd));
  return (family === 4 ? pod?.shadow4 : pod?.shadow6) ?? "";
}

async function linkLocal(): Promise<string> {
  let found: string | undefined;
  await expect
    .poll(
      () => {
        found = native()
          .addresses(lab.pod.netns.fd)
          .find(({ address }) => address.startsWith("fe80:"))?.address;
        return found;
      },
      { timeout: 5000 },
    )
    .toBeDefined();
  return found ?? "";
}
