// SPDX-License-Identifier: Apache-2.0
// Ways past a redirection that were found by attacking a prototype, each as a test.
import { mkdtempSync, rmSync } from "node:fs";
import { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { ZTUNNEL_MARK } from "../../../src/core/constants.ts";
import type { CaptureSpec } from "../../../src/core/ports/dataplane.ts";
import type { NodeDataplane } from "../../../src/dataplane/dataplane.ts";
import { isBehindEbpf } from "../../../src/dataplane/proxied.ts";
import { native } from "../../../src/native/load.ts";
import type { HeldNetns } from "../../../src/native/netns.ts";
import { run } from "../../../src/sys/exec.ts";
import { specOf, startDataplane } from "../../support/lab-dataplane.ts";
import { ENGINES } from "../../support/lab-engines.ts";
import { Call, EchoServer, outcome } from "../../support/lab-peer.ts";
import { LabZtunnel } from "../../support/lab-ztunnel.ts";
import { inNetns, ipOf, NetnsLab } from "../../support/netns-lab.ts";

const APP = 8080;
const SERVICE = 80;
/** TCP_SYN_RECV, as sock_diag reports a request that waits for its third packet. */
const SYN_RECV = 3;
/** Seconds for which conntrack remembers a connection that is half closed. */
const REMEMBERED = ["close_wait", "fin_wait"].map((state) => `net/netfilter/nf_conntrack_tcp_timeout_${state}`);
/** ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK. */
const UNFINISHED = [1, 4, 5, 8, 9];

let dataplane: NodeDataplane;
let lab: NetnsLab;
let ztunnel: LabZtunnel;
let folder: string;
const servers: EchoServer[] = [];

describe.each(ENGINES)("$name", (engine) => {
  beforeAll(async () => {
    dataplane = await startDataplane(native(), engine);
    folder = mkdtempSync(join(tmpdir(), "lab-syn-"));
    await run(["cc", "-O1", "-o", join(folder, "lab-syn"), join(import.meta.dirname, "../../support/lab-syn.c")], {
      timeoutMs: 20_000,
    });
  });
  afterAll(() => {
    dataplane.close();
    rmSync(folder, { recursive: true });
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

  const capture = (changes: Partial<CaptureSpec> = {}) => dataplane.capture(lab.pod.netns, specOf(lab, changes));

  describe.each([4, 6] as const)("IPv%i", (family) => {
    const podIp = () => ipOf(lab.pod, family);

    test("one source port, several destinations: ztunnel is told the right one each time", async () => {
      const destinations = Array.from({ length: 60 }, (_, i) =>
        lab.remote(family, family === 4 ? `10.66.3.${i + 1}` : `fd66::3:${(i + 1).toString(16)}`),
      );
      await capture();
      const bind = { address: podIp(), port: 41_000 };
      const calls = await Promise.all(
        destinations.map((address) =>
          Call.open(lab.pod.netns, family, address, SERVICE, { bind, reuseAddress: true, reusePort: true }),
        ),
      );
      for (const [i, call] of calls.entries()) {
        const address = destinations[i];
        const { name, local } = await call.greeting();
        expect({ name, local }).toEqual({ name: "remote", local: { address, port: SERVICE } });
        expect(call.peer).toEqual({ address, port: SERVICE });
        expect(call.own.port).toBe(41_000);
      }
      expect(new Set(ztunnel.accepted.map(({ original }) => original.address)).size).toBe(60);
      for (const call of calls) expect(await call.echo("alive")).toBe("alive");
      for (const call of calls) call.close();
    });

    test("one source port of a client, several ports of the pod: each is answered while the others are open", async () => {
      const ports = [APP, APP + 1, APP + 2];
      for (const port of ports.slice(1)) {
        servers.push(
          await EchoServer.start(lab.pod.netns, `app ${port}`, { family: 6, bind: { address: "::", port } }),
        );
      }
      await capture();
      const bind = { address: ipOf(lab.client, family), port: 41_000 };
      const calls: Call[] = [];
      for (const port of ports) {
        const call = await Call.open(lab.client.netns, family, podIp(), port, {
          bind,
          reuseAddress: true,
          reusePort: true,
        });
        calls.push(call);
        const { name, remote } = await call.greeting();
        expect({ name, caller: remote.address }).toEqual({
          name: port === APP ? "app" : `app ${port}`,
          caller: bind.address,
        });
      }
      expect(ztunnel.accepted.map(({ original }) => original.port)).toEqual(ports);
      for (const call of calls) expect(await call.echo("alive")).toBe("alive");
      for (const call of calls) call.close();
    });

    test("short connections in and out whose ports recycle all succeed, none past ztunnel", async () => {
      // Both ends draw from the same few ports, and whoever listens closes first: no caller's port stays
      // in TIME_WAIT, so that tuples come back while conntrack and the listeners still remember them.
      for (const { netns } of [lab.pod, lab.client]) {
        native().sysctlSet(netns.fd, "net/ipv4/ip_local_port_range", "50000 50100");
      }
      for (const server of servers) server.server.on("connection", (socket) => socket.end());
      await capture();
      const rounds = 300;
      const width = 16;
      const ends = new Map<string, number>();
      for (let round = 0; round < rounds; round++) {
        const results = await Promise.all(
          Array.from({ length: width }, (_, i) =>
            i % 2 === 0
              ? shortCall(Call.open(lab.client.netns, family, podIp(), APP))
              : shortCall(Call.open(lab.pod.netns, family, ipOf(lab.client, family), SERVICE)),
          ),
        );
        for (const end of results) ends.set(end, (ends.get(end) ?? 0) + 1);
      }
      const half = (rounds * width) / 2;
      expect(ends).toEqual(
        new Map([
          ["app", half],
          ["remote", half],
        ]),
      );
      expect(ztunnel.accepted).toHaveLength(2 * half);
      expect(ztunnel.failures).toEqual([]);
    });

    test("while draining, callers whose ports ztunnel's ended connections had are answered", async () => {
      native().sysctlSet(lab.client.netns.fd, "net/ipv4/ip_local_port_range", "50000 50015");
      for (const server of servers) server.server.on("connection", (socket) => socket.end());
      await capture();
      const calls = () =>
        Promise.all(Array.from({ length: 8 }, () => shortCall(Call.open(lab.client.netns, family, podIp(), APP))));
      for (let i = 0; i < 6; i++) expect(await calls()).toEqual(Array(8).fill("app"));
      await dataplane.drain(lab.pod.netns, specOf(lab));
      const proxied = ztunnel.accepted.length;
      for (let i = 0; i < 6; i++) expect(await calls()).toEqual(Array(8).fill("app"));
      expect(ztunnel.accepted).toHaveLength(proxied);
    });

    test("a caller that closes first, and acknowledges the end from TIME_WAIT, leaves nothing behind in ztunnel", async () => {
      await capture();
      for (let i = 0; i < 200; i++) {
        const call = await Call.open(lab.pod.netns, family, ipOf(lab.client, family), SERVICE);
        await call.greeting();
        call.close();
      }
      // Such a leftover would meet a later caller with the same port, who then waits in vain.
      const open = () =>
        native()
          .sockets(lab.pod.netns.fd, { protocol: "tcp", states: UNFINISHED })
          .filter(({ srcPort }) => srcPort === 15001);
      await expect.poll(open).toEqual([]);
    });

    test("a port of ztunnel's whose connection was reset leads an application past nobody", async () => {
      await capture();
      const remote = servers[1];
      const first = await Call.open(lab.pod.netns, family, ipOf(lab.client, family), SERVICE);
      const bind = { address: podIp(), port: (await first.greeting()).remote.port };
      for (const socket of remote?.sockets ?? []) socket.resetAndDestroy();
      await first.end().catch(() => undefined);
      const served = ztunnel.accepted.length;
      // Conntrack remembers it for ten seconds, and that it was not to be turned.
      const again = await outcome(
        Call.open(lab.pod.netns, family, ipOf(lab.client, family), SERVICE, { bind, reuseAddress: true }),
      );
      expect([again, ztunnel.accepted.length - served]).toEqual(
        engine.engine === "ebpf" ? ["remote", 1] : ["ECONNREFUSED", 0],
      );
      const verdicts = dataplane.verdicts(lab.pod.netns, engine.engine);
      expect(verdicts.outbound_refused_stale ?? 0).toBe(engine.engine === "ebpf" ? 0 : 1);
    });

    test.each(["conntrack has known", "conntrack has not known"])(
      "a port whose connection was older than the capture, and reset, leads a client past nobody: one that %s",
      async (known) => {
        // A firewall of the pod's own is what makes the kernel track connections before we come.
        if (known === "conntrack has known") {
          const chain = "chain i { type filter hook input priority 0; ct state established accept; };";
          await inNetns(lab.pod.netns, "nft", `table inet own { ${chain} }`);
        }
        const bind = { address: ipOf(lab.client, family), port: 41_000 };
        const call = () => Call.open(lab.client.netns, family, podIp(), APP, { bind, reuseAddress: true });
        const older = await call();
        await older.greeting();
        await capture();
        expect(await older.echo("goes on")).toBe("goes on");
        for (const socket of servers[0]?.sockets ?? []) socket.resetAndDestroy();
        await older.end().catch(() => undefined);
        const refused = engine.engine !== "ebpf" && known === "conntrack has known";
        expect([await outcome(call()), ztunnel.accepted.length]).toEqual(refused ? ["ECONNREFUSED", 0] : ["app", 1]);
        const verdicts = dataplane.verdicts(lab.pod.netns, engine.engine);
        expect(verdicts.inbound_refused_stale ?? 0).toBe(refused ? 1 : 0);
      },
    );

    test("ports of connections older than the capture, which had been idle and are ended, lead to ztunnel", async () => {
      const ways = [
        { netns: lab.client.netns, from: ipOf(lab.client, family), to: podIp(), port: APP, name: "app" },
        { netns: lab.pod.netns, from: podIp(), to: ipOf(lab.client, family), port: SERVICE, name: "remote" },
      ];
      const calls = () =>
        Promise.all(
          ways.map(({ netns, from, to, port }) =>
            Call.open(netns, family, to, port, { bind: { address: from, port: 41_000 }, reuseAddress: true }),
          ),
        );
      const older = await calls();
      for (const call of older) await call.greeting();
      await capture();
      // The first that is seen of them is a FIN of whoever was called, so that their ports are free at once.
      for (const server of servers) for (const socket of server.sockets) socket.end();
      for (const call of older) await call.end();
      for (const call of older) call.close();
      const open = () =>
        ways.flatMap(({ netns }) =>
          native()
            .sockets(netns.fd, { protocol: "tcp", states: UNFINISHED })
            .filter(({ srcPort }) => srcPort === 41_000),
        );
      await expect.poll(open).toEqual([]);
      const again = await calls();
      for (const [i, call] of again.entries()) expect((await call.greeting()).name).toBe(ways[i]?.name);
      expect(ztunnel.accepted).toHaveLength(2);
      for (const call of again) call.close();
    });

    test("what an application writes late, when its server has ended the connection, is ztunnel's", async () => {
      for (const key of REMEMBERED) native().sysctlSet(lab.pod.netns.fd, key, "1");
      await capture();
      const [caller, news] = await halfOpen(lab.pod.netns, family, ipOf(lab.client, family), SERVICE);
      const { port } = native().localEndpoint(caller.fd);
      await expect.poll(news).toContain("remote");
      for (const socket of servers[1]?.sockets ?? []) socket.end();
      await expect.poll(news).toContain("end");
      await inNetns(
        lab.client.netns,
        "nft",
        `table inet q { chain i { type filter hook prerouting priority -400; tcp sport ${port} counter drop; }; }`,
      );
      await sleep(1300);
      caller.socket.write("secret\n");
      await sleep(100);
      expect(await inNetns(lab.client.netns, "nft", "list", "table", "inet", "q")).toContain("packets 0 bytes 0");
      caller.socket.destroy();
    });

    test("an answer that comes long after its caller has ended the question arrives", async () => {
      for (const key of REMEMBERED) native().sysctlSet(lab.pod.netns.fd, key, "1");
      for (const { server } of servers) {
        server.removeAllListeners("connection").on("connection", (socket: Socket) => {
          socket.allowHalfOpen = true;
          socket.resume().on("end", () => setTimeout(() => socket.end("late"), 1300));
        });
      }
      await capture();
      const calls = [
        await halfOpen(lab.pod.netns, family, ipOf(lab.client, family), SERVICE),
        await halfOpen(lab.client.netns, family, podIp(), APP),
      ];
      for (const [{ socket }] of calls) socket.end("question");
      for (const [{ socket }, news] of calls) {
        await expect.poll(news, { timeout: 5000 }).toBe("late end");
        socket.destroy();
      }
      expect(ztunnel.accepted).toHaveLength(2);
    });

    test("connect to the unspecified address means loopback and is direct", async () => {
      await capture();
      for (const address of family === 4 ? ["0.0.0.0"] : ["::", "::ffff:0.0.0.0"]) {
        expect(await outcome(Call.open(lab.pod.netns, family, address, APP))).toBe("app");
      }
      expect(ztunnel.accepted).toEqual([]);
    });

    test.each(["plain", "options", "fragments"])(
      "an inbound SYN of shape %s is for ztunnel, not the app",
      async (shape) => {
        await capture();
        // Nobody in the client's netns knows the connection: its resets would end it before we look.
        await inNetns(
          lab.client.netns,
          "sh",
          "-c",
          "nft add table inet q; nft add chain inet q o '{ type filter hook output priority 0; }'; nft add rule inet q o 'tcp flags rst drop'",
        );
        const argv = [shape, ipOf(lab.client, family), "42000", podIp(), String(APP)];
        await inNetns(lab.client.netns, join(folder, "lab-syn"), ...argv);
        const answering = () =>
          native()
            .sockets(lab.pod.netns.fd, { protocol: "tcp", states: [SYN_RECV] })
            .map((socket) => `${socket.dstPort} -> ${isBehindEbpf(socket) ? 15006 : socket.srcPort}`);
        if (shape === "fragments" && !engine.takesFragmentedSyns) {
          // What they say once they are put together is not to be seen before: nobody gets them.
          await sleep(300);
          expect(answering()).toEqual([]);
        } else {
          await expect.poll(answering).toEqual(["42000 -> 15006"]);
        }
      },
    );

    if (engine.reachesMarkedListeners)
      test("a listener with an SO_MARK of its own is reached, at once or after one lost SYN", async () => {
        const marked = { family: 6, bind: { address: "::", port: 8081 }, mark: 0x77 } as const;
        servers.push(await EchoServer.start(lab.pod.netns, "marked", marked));
        await capture();
        const calls: Call[] = [];
        for (let i = 0; i < 8; i++) calls.push(await Call.open(lab.client.netns, family, podIp(), 8081));
        for (const call of calls) {
          const { name, remote } = await call.greeting();
          expect({ name, from: remote.address }).toEqual({ name: "marked", from: ipOf(lab.client, family) });
        }
        // A change of settings keeps what was learnt, and so the connections.
        await capture({ dnsCapture: false });
        for (const call of calls) expect(await call.echo("kept")).toBe("kept");
        const late = performance.now();
        expect(await outcome(Call.open(lab.client.netns, family, podIp(), 8081))).toBe("marked");
        expect(performance.now() - late, "learnt once, never again").toBeLessThan(900);
        expect(await outcome(Call.open(lab.client.netns, family, podIp(), 8081))).toBe("marked");
        for (const call of calls) call.close();
      });

    if (engine.reachesMarkedListeners)
      test("a listener with a mark of its own and the client's very port", async () => {
        await ztunnel.close();
        ztunnel = await LabZtunnel.start(lab.pod.netns, { legPort: ({ port }) => port });
        const marked = { family: 6, bind: { address: "::", port: 8081 }, mark: 0x77 } as const;
        servers.push(await EchoServer.start(lab.pod.netns, "marked", marked));
        await capture();
        const calls: Call[] = [];
        for (let i = 0; i < 8; i++) calls.push(await Call.open(lab.client.netns, family, podIp(), 8081));
        for (const call of calls) expect((await call.greeting()).name).toBe("marked");
        for (const call of calls) expect(await call.echo("alive")).toBe("alive");
        for (const call of calls) call.close();
      });

    test("connections that wait in the queue of a ztunnel that ends are taken by its successor", async () => {
      await capture();
      await ztunnel.close();
      const options = { family: 6, bind: { address: "::", port: 15001 }, mark: ZTUNNEL_MARK, reusePort: true } as const;
      const old = native().tcpListen(lab.pod.netns.fd, { ...options, transparent: true });
      const waiting = await Promise.all(
        Array.from({ length: 8 }, () => Call.open(lab.pod.netns, family, ipOf(lab.client, family), SERVICE)),
      );
      ztunnel = await LabZtunnel.start(lab.pod.netns);
      native().close(old);
      for (const call of waiting) expect((await call.greeting()).name).toBe("remote");
      for (const call of waiting) call.close();
    });
  });
});

/** A connection that does not end its half when the other side has ended its own; and what has come by it so far. */
async function halfOpen(netns: HeldNetns, family: 4 | 6, address: string, port: number) {
  const fd = await native().tcpConnect(netns.fd, { family, address, port, timeout: 3000 });
  const socket = new Socket({ fd, allowHalfOpen: true });
  const come: string[] = [];
  socket.on("data", (data) => come.push(data.toString()));
  socket.on("end", () => come.push("end"));
  socket.on("error", (error) => come.push(String(error)));
  return [{ fd, socket }, () => come.join(" ")] as const;
}

/** The name of who answered, once the other side has closed. */
async function shortCall(opening: Promise<Call>): Promise<string> {
  let call: Call;
  try {
    call = await opening;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? String(error);
  }
  try {
    const { name } = await call.greeting();
    await call.end();
    return name;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? "closed";
  } finally {
    call.close();
  }
}
