// SPDX-License-Identifier: Apache-2.0
// DNS goes to ztunnel at 15053, and the answer seems to come from the nameserver that was asked.
import { createSocket, type RemoteInfo, type Socket } from "node:dgram";
import { once } from "node:events";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { ZTUNNEL_MARK } from "../../../src/core/constants.ts";
import type { CaptureSpec } from "../../../src/core/ports/dataplane.ts";
import type { NodeDataplane } from "../../../src/dataplane/dataplane.ts";
import type { SocketOptions } from "../../../src/native/binding.ts";
import { native } from "../../../src/native/load.ts";
import type { HeldNetns } from "../../../src/native/netns.ts";
import { specOf, startDataplane } from "../../support/lab-dataplane.ts";
import { ENGINES } from "../../support/lab-engines.ts";
import { Call, EchoServer, outcome } from "../../support/lab-peer.ts";
import { LabZtunnel } from "../../support/lab-ztunnel.ts";
import { NetnsLab } from "../../support/netns-lab.ts";

let dataplane: NodeDataplane;
let lab: NetnsLab;
let ztunnel: LabZtunnel;
const open: Socket[] = [];
const servers: EchoServer[] = [];

describe.each(ENGINES)("$name", (engine) => {
  beforeAll(async () => {
    dataplane = await startDataplane(native(), engine);
  });
  afterAll(() => dataplane.close());
  beforeEach(async () => {
    lab = NetnsLab.create();
    ztunnel = await LabZtunnel.start(lab.pod.netns);
  });
  afterEach(async () => {
    for (const socket of open.splice(0)) socket.close();
    for (const server of servers.splice(0)) await server.close();
    await ztunnel.close();
    lab.close();
  });

  const capture = (changes: Partial<CaptureSpec> = {}) => dataplane.capture(lab.pod.netns, specOf(lab, changes));

  describe.each([4, 6] as const)("IPv%i", (family) => {
    const nameservers = family === 4 ? (["10.66.0.53", "10.66.0.54"] as const) : (["fd66::53", "fd66::54"] as const);
    const [first, second] = nameservers;

    function socketIn(netns: HeldNetns, options: Partial<SocketOptions> = {}): Socket {
      const socket = createSocket(family === 4 ? "udp4" : "udp6");
      socket.bind({ fd: native().udpSocket(netns.fd, { ...options, family }) });
      open.push(socket);
      return socket;
    }

    /** A real nameserver outside the pod, that must not be asked when capture is on. */
    function nameserver(address: string): void {
      lab.remote(family, address);
      const socket = socketIn(lab.client.netns, { bind: { address, port: 53 } });
      socket.on("message", (message, from) => socket.send(`real:${message}`, from.port, from.address));
    }

    async function ask(socket: Socket, text: string, server?: string): Promise<{ text: string; from: string }> {
      const answered = once(socket, "message", { signal: AbortSignal.timeout(3000) });
      if (server === undefined) socket.send(text);
      else socket.send(text, 53, server);
      const [message, from]: [Buffer, RemoteInfo] = (await answered) as [Buffer, RemoteInfo];
      expect(from.port).toBe(53);
      return { text: message.toString(), from: from.address };
    }

    test("a connected socket (glibc, Go) gets its answer from the nameserver it asked", async () => {
      nameserver(first);
      await capture();
      const socket = socketIn(lab.pod.netns);
      socket.connect(53, first);
      await once(socket, "connect");
      expect(await ask(socket, "a")).toEqual({ text: "answer:a", from: first });
      expect(await ask(socket, "b")).toEqual({ text: "answer:b", from: first });
    });

    test("one unconnected socket with several nameservers (musl) tells them apart", async () => {
      await capture();
      const socket = socketIn(lab.pod.netns);
      expect(await ask(socket, "one", first)).toEqual({ text: "answer:one", from: first });
      expect(await ask(socket, "two", second)).toEqual({ text: "answer:two", from: second });
      // musl sends to all at once and takes whichever answers.
      const answers = new Map<string, string>();
      const both = new Promise<void>((resolve) => {
        socket.on("message", (message, from) => {
          answers.set(from.address, message.toString());
          if (answers.size === 2) resolve();
        });
      });
      socket.send("x", 53, first);
      socket.send("y", 53, second);
      await both;
      expect(answers).toEqual(
        new Map([
          [first, "answer:x"],
          [second, "answer:y"],
        ]),
      );
    });

    test("a socket that is connected anew to another nameserver hears that one", async () => {
      await capture();
      const socket = socketIn(lab.pod.netns);
      for (const server of [first, second, first]) {
        socket.connect(53, server);
        await once(socket, "connect");
        expect(await ask(socket, server)).toEqual({ text: `answer:${server}`, from: server });
        socket.disconnect();
      }
    });

    test("a socket bound to the pod's address works", async () => {
      await capture();
      const address = family === 4 ? lab.pod.ipv4 : lab.pod.ipv6;
      const socket = socketIn(lab.pod.netns, { bind: { address, port: 0 } });
      expect(await ask(socket, "bound", first)).toEqual({ text: "answer:bound", from: first });
    });

    test("TCP", async () => {
      await capture();
      const call = await Call.open(lab.pod.netns, family, first, 53);
      expect(call.peer).toEqual({ address: first, port: 53 });
      expect(await call.echo("question")).toBe("answer:question");
      expect(ztunnel.questions).toEqual([{ protocol: "tcp", text: "question" }]);
      call.close();
    });

    test("a resolver inside the pod (systemd's stub) is asked directly", async () => {
      await capture();
      const stub = family === 4 ? "127.0.0.53" : "::1";
      const server = socketIn(lab.pod.netns, { bind: { address: stub, port: 53 } });
      server.on("message", (message, from) => server.send(`stub:${message}`, from.port, from.address));
      expect(await ask(socketIn(lab.pod.netns), "q", stub)).toEqual({ text: "stub:q", from: stub });
      expect(ztunnel.questions).toEqual([]);
    });

    test("limited to the pod's nameservers, another one is asked directly", async () => {
      nameserver(second);
      await capture({ dnsServers: [first, "127.0.0.53", "192.0.2.53", "2001:db8::53"] });
      const socket = socketIn(lab.pod.netns);
      expect(await ask(socket, "q", first)).toEqual({ text: "answer:q", from: first });
      expect(await ask(socket, "q", second)).toEqual({ text: "real:q", from: second });
      const call = await Call.open(lab.pod.netns, family, first, 53);
      expect(await call.echo("t")).toBe("answer:t");
      call.close();
    });

    test("limited to no nameserver at all, UDP is asked directly and TCP is ordinary traffic", async () => {
      nameserver(first);
      servers.push(
        await EchoServer.start(lab.client.netns, "tcp-nameserver", { family, bind: { address: first, port: 53 } }),
      );
      await capture({ dnsServers: [] });
      expect(await ask(socketIn(lab.pod.netns), "q", first)).toEqual({ text: "real:q", from: first });
      expect(await outcome(Call.open(lab.pod.netns, family, first, 53))).toBe("tcp-nameserver");
      expect(ztunnel.via({ address: first, port: 53 })).toEqual([15001]);
    });

    test("off: UDP is direct", async () => {
      nameserver(first);
      await capture({ dnsCapture: false });
      expect(await ask(socketIn(lab.pod.netns), "q", first)).toEqual({ text: "real:q", from: first });
    });

    test("a nameserver in an excluded CIDR is asked directly", async () => {
      nameserver(first);
      await capture({ excludeOutboundCidrs: [`${first}/${family === 4 ? 32 : 128}`] });
      expect(await ask(socketIn(lab.pod.netns), "q", first)).toEqual({ text: "real:q", from: first });
      expect(await ask(socketIn(lab.pod.netns), "q", second)).toEqual({ text: "answer:q", from: second });
    });

    test("ztunnel's own question goes out, also from a port that an application has just used", async () => {
      nameserver(first);
      await capture();
      const bind = { address: family === 4 ? "0.0.0.0" : "::", port: 40_000 };
      const application = socketIn(lab.pod.netns, { bind });
      expect(await ask(application, "q", first)).toEqual({ text: "answer:q", from: first });
      open.splice(open.indexOf(application), 1);
      application.close();
      const ztunnelAsks = socketIn(lab.pod.netns, { bind, mark: ZTUNNEL_MARK, reusePort: true });
      expect(await ask(ztunnelAsks, "up", first)).toEqual({ text: "real:up", from: first });
      open.splice(open.indexOf(ztunnelAsks), 1);
      ztunnelAsks.close();
      // And the other way round: what ztunnel asked from a port opens no way past it.
      const next = socketIn(lab.pod.netns, { bind });
      expect(await ask(next, "again", first)).toEqual({ text: "answer:again", from: first });
    });

    test("draining: new questions are asked directly", async () => {
      nameserver(first);
      await capture();
      await dataplane.drain(lab.pod.netns, specOf(lab));
      expect(await ask(socketIn(lab.pod.netns), "q", first)).toEqual({ text: "real:q", from: first });
    });

    test("without ztunnel a question is refused, never asked in the clear", async () => {
      nameserver(first);
      await capture();
      await ztunnel.closeListeners();
      const socket = socketIn(lab.pod.netns);
      socket.connect(53, first);
      await once(socket, "connect");
      const failed = once(socket, "error", { signal: AbortSignal.timeout(3000) });
      socket.send("q");
      const [error] = await failed;
      expect(error.code).toBe("ECONNREFUSED");
    });
  });
});
