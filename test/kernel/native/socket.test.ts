// SPDX-License-Identifier: Apache-2.0
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { createServer, Socket } from "node:net";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { AddressFamily } from "../../../src/native/binding.ts";
import { OwnedFd } from "../../../src/native/fd.ts";
import { native } from "../../../src/native/load.ts";
import { guardFds } from "../../support/fds.ts";
import { inNetns, ipOf, NetnsLab } from "../../support/netns-lab.ts";

guardFds();

let lab: NetnsLab;
beforeEach(() => {
  lab = NetnsLab.create();
});
afterEach(() => {
  lab.close();
});

describe.each([4, 6] as const)("IPv%i", (family: AddressFamily) => {
  test("node:net serves and connects on fds made in two netns, and both see the right addresses", async () => {
    const podIp = ipOf(lab.pod, family);
    const clientIp = ipOf(lab.client, family);
    const listener = native().tcpListen(lab.pod.netns.fd, { family, bind: { address: podIp, port: 8080 } });
    const server = createServer((socket) => {
      socket.end(`hello ${socket.remoteAddress} from ${socket.localAddress}:${socket.localPort}`);
    });
    server.listen({ fd: listener });
    await once(server, "listening");
    const fd = await native().tcpConnect(lab.client.netns.fd, { family, address: podIp, port: 8080, timeout: 2000 });
    expect(native().remoteEndpoint(fd)).toEqual({ address: podIp, port: 8080 });
    expect(native().localEndpoint(fd).address).toBe(clientIp);
    const socket = new Socket({ fd });
    const [data] = await once(socket, "data");
    expect(String(data)).toBe(`hello ${clientIp} from ${podIp}:8080`);
    socket.destroy();
    await once(socket, "close");
    server.close();
    await once(server, "close");
  });

  test("mark, transparent and a source address that the netns does not have", async () => {
    const foreign = family === 4 ? "192.0.2.77" : "2001:db8::77";
    using fd = OwnedFd.adopt(
      native().tcpListen(lab.pod.netns.fd, {
        family,
        mark: 0x539,
        transparent: true,
        reusePort: true,
        bind: { address: foreign, port: 15006 },
      }),
      "listener",
    );
    expect(native().socketMark(fd.fd)).toBe(0x539);
    expect(native().localEndpoint(fd.fd)).toEqual({ address: foreign, port: 15006 });
    const shown = await inNetns(lab.pod.netns, "ss", "-ltnHe");
    expect(shown).toContain(":15006");
    expect(shown).toContain("fwmark:0x539");
    expect(() => native().tcpListen(lab.pod.netns.fd, { family, bind: { address: foreign, port: 15007 } })).toThrow(
      expect.objectContaining({ code: "EADDRNOTAVAIL", message: expect.stringContaining(foreign) }),
    );
    using free = OwnedFd.adopt(
      native().tcpListen(lab.pod.netns.fd, { family, freebind: true, bind: { address: foreign, port: 15007 } }),
      "freebind listener",
    );
    expect(native().localEndpoint(free.fd).port).toBe(15007);
  });

  test("reusePort lets a second listener in, its absence does not", () => {
    const bind = { address: ipOf(lab.pod, family), port: 9000 };
    using _first = OwnedFd.adopt(native().tcpListen(lab.pod.netns.fd, { family, bind, reusePort: true }), "first");
    using _second = OwnedFd.adopt(native().tcpListen(lab.pod.netns.fd, { family, bind, reusePort: true }), "second");
    expect(() => native().tcpListen(lab.pod.netns.fd, { family, bind })).toThrow(
      expect.objectContaining({ code: "EADDRINUSE" }),
    );
  });

  test("a UDP socket made in the pod answers a client through node:dgram", async () => {
    const podIp = ipOf(lab.pod, family);
    const type = family === 4 ? "udp4" : "udp6";
    const server = createSocket(type);
    server.bind({ fd: native().udpSocket(lab.pod.netns.fd, { family, bind: { address: podIp, port: 5300 } }) });
    server.on("message", (message, from) => server.send(`${message} from ${from.address}`, from.port, from.address));
    const client = createSocket(type);
    const bind = { address: ipOf(lab.client, family), port: 0 };
    client.bind({ fd: native().udpSocket(lab.client.netns.fd, { family, bind }) });
    client.send("ping", 5300, podIp);
    const [answer, sender] = await once(client, "message");
    expect(String(answer)).toBe(`ping from ${ipOf(lab.client, family)}`);
    expect(sender).toMatchObject({ address: podIp, port: 5300 });
    for (const socket of [server, client]) {
      socket.close();
      await once(socket, "close");
    }
  });

  test("SO_ORIGINAL_DST tells where a redirected connection was going; without a redirect nothing does", async () => {
    const podIp = ipOf(lab.pod, family);
    await inNetns(
      lab.pod.netns,
      "nft",
      `add table inet t; add chain inet t in { type nat hook prerouting priority -100; }; add rule inet t in tcp dport 80 redirect to :15006`,
    );
    const listener = native().tcpListen(lab.pod.netns.fd, { family, bind: { address: podIp, port: 15006 } });
    const server = createServer();
    server.listen({ fd: listener });
    await once(server, "listening");
    const accepted = once(server, "connection");
    using fd = OwnedFd.adopt(
      await native().tcpConnect(lab.client.netns.fd, { family, address: podIp, port: 80, timeout: 2000 }),
      "client",
    );
    const [socket] = await accepted;
    expect(native().originalDestination(socket._handle.fd)).toEqual({ address: podIp, port: 80 });
    expect(native().originalDestination(fd.fd)).toEqual(undefined);
    expect(native().remoteEndpoint(fd.fd).port).toBe(80);
    socket.destroy();
    await once(socket, "close");
    server.close();
    await once(server, "close");
  });

  test("a refused connection says so at once", async () => {
    const target = { family, address: ipOf(lab.pod, family), port: 1, timeout: 5000 };
    await expect(native().tcpConnect(lab.client.netns.fd, target)).rejects.toMatchObject({
      code: "ECONNREFUSED",
      syscall: "connect",
      message: expect.stringContaining(family === 4 ? "10.66.0.2:1" : "[fd66::2]:1"),
    });
  });

  test("a connection that is complete is not lost to a deadline that nobody could look at in time", async () => {
    const loopback = family === 4 ? "127.0.0.1" : "::1";
    const listener = native().tcpListen(lab.pod.netns.fd, { family, bind: { address: loopback, port: 0 } });
    const { address, port } = native().localEndpoint(listener);
    const connecting = native().tcpConnect(lab.pod.netns.fd, { family, address, port, timeout: 1 });
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 50);
    native().close(await connecting);
    native().close(listener);
  });

  test("a black hole ends with ETIMEDOUT, an unreachable network with the kernel's error", async () => {
    await inNetns(
      lab.pod.netns,
      "nft",
      "add table inet t; add chain inet t in { type filter hook input priority 0; policy drop; }",
    );
    const target = { family, address: ipOf(lab.pod, family), port: 80, timeout: 150 };
    await expect(native().tcpConnect(lab.client.netns.fd, target)).rejects.toMatchObject({ code: "ETIMEDOUT" });
    const beyond = { family, address: family === 4 ? "203.0.113.1" : "2001:db8::1", port: 80, timeout: 1000 };
    await expect(native().tcpConnect(lab.client.netns.fd, beyond)).rejects.toMatchObject({ code: "ENETUNREACH" });
  });
});

test("an IPv4 client of a dual-stack listener is a v4-mapped address, a v6Only listener refuses it", async () => {
  const bind = { address: "::", port: 8080 };
  using dual = OwnedFd.adopt(native().tcpListen(lab.pod.netns.fd, { family: 6, v6Only: false, bind }), "dual");
  const target = { family: 4, address: lab.pod.ipv4, port: 8080, timeout: 1000 } as const;
  using client = OwnedFd.adopt(await native().tcpConnect(lab.client.netns.fd, target), "client");
  const [pod] = native()
    .sockets(lab.pod.netns.fd, { protocol: "tcp", states: [1] })
    .map(({ src, dst }) => ({ src, dst }));
  expect(pod).toEqual({ src: `::ffff:${lab.pod.ipv4}`, dst: `::ffff:${lab.client.ipv4}` });
  dual.close();
  client.close();
  using _only = OwnedFd.adopt(native().tcpListen(lab.pod.netns.fd, { family: 6, v6Only: true, bind }), "v6 only");
  await expect(native().tcpConnect(lab.client.netns.fd, target)).rejects.toMatchObject({ code: "ECONNREFUSED" });
});

test("a socket bound to a device does not reach another one", async () => {
  const options = { family: 4, address: lab.pod.ipv4, port: 8080, timeout: 200, device: "lo" } as const;
  using _listener = OwnedFd.adopt(
    native().tcpListen(lab.pod.netns.fd, { family: 4, bind: { address: "0.0.0.0", port: 8080 } }),
    "listener",
  );
  await expect(native().tcpConnect(lab.client.netns.fd, options)).rejects.toThrow();
  using fd = OwnedFd.adopt(await native().tcpConnect(lab.client.netns.fd, { ...options, device: "veth0" }), "client");
  expect(native().remoteEndpoint(fd.fd).address).toBe(lab.pod.ipv4);
});

test("hundreds of connects at once settle, each with its own result", async () => {
  using _listener = OwnedFd.adopt(
    native().tcpListen(lab.pod.netns.fd, { family: 4, backlog: 1024, bind: { address: lab.pod.ipv4, port: 8080 } }),
    "listener",
  );
  const results = await Promise.allSettled(
    Array.from({ length: 400 }, (_, i) =>
      native().tcpConnect(lab.client.netns.fd, {
        family: 4,
        address: lab.pod.ipv4,
        port: i % 2 === 0 ? 8080 : 8081,
        timeout: 5000,
      }),
    ),
  );
  results.forEach((result, i) => {
    if (result.status === "fulfilled") native().close(result.value);
    expect(result.status).toBe(i % 2 === 0 ? "fulfilled" : "rejected");
  });
});
