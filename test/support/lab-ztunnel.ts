// SPDX-License-Identifier: Apache-2.0
// A minimal ztunnel for one netns: it opens its sockets as ztunnel does (ztunnel.md section 2: families,
// mark, transparent, reuseport, backlog 128; order DNS, 15008, 15006, 15001) and, like ztunnel, reaches
// the application with the client's address. No mesh protocol: the far side of 15001 is a plain connection.
import { createSocket, type Socket as Datagram } from "node:dgram";
import { once } from "node:events";
import { createServer, type Server, Socket } from "node:net";
import { ZTUNNEL_MARK, ZTUNNEL_PORT } from "../../src/core/constants.ts";
import type { AddressFamily, Endpoint, ListenOptions } from "../../src/native/binding.ts";
import { native } from "../../src/native/load.ts";
import type { HeldNetns } from "../../src/native/netns.ts";
import { canonical } from "./lab-peer.ts";

export interface Accepted {
  readonly port: number;
  readonly peer: Endpoint;
  /** What SO_ORIGINAL_DST, else getsockname, said. */
  readonly original: Endpoint;
}

export interface LabZtunnelOptions {
  /** Port of the spoofed leg; 0 (default) lets the kernel choose, as ztunnel does. */
  readonly legPort?: (client: Endpoint) => number;
  /** Port of the application that a connection to 15008 is handed on to; by default ztunnel itself greets. */
  readonly hboneTo?: number;
}

const ILLEGAL_PORTS: readonly number[] = [
  ZTUNNEL_PORT.outbound,
  ZTUNNEL_PORT.inboundPlaintext,
  ZTUNNEL_PORT.inboundHbone,
];

export class LabZtunnel {
  /** Every connection accepted on 15001, 15006 and 15008. */
  readonly accepted: Accepted[] = [];
  /** Questions that reached 15053, and over what. */
  readonly questions: { readonly protocol: "udp" | "tcp"; readonly text: string }[] = [];
  readonly failures: string[] = [];
  readonly #servers: Server[] = [];
  readonly #datagrams: Datagram[] = [];
  readonly #sockets = new Set<Socket>();

  private constructor(
    private readonly netns: HeldNetns,
    private readonly options: LabZtunnelOptions,
  ) {}

  static async start(netns: HeldNetns, options: LabZtunnelOptions = {}): Promise<LabZtunnel> {
    const ztunnel = new LabZtunnel(netns, options);
    for (const [family, address] of [
      [4, "127.0.0.1"],
      [6, "::1"],
    ] as const) {
      await ztunnel.#dns(family, address);
    }
    await ztunnel.#listen(ZTUNNEL_PORT.inboundHbone, (socket, from) => ztunnel.#hbone(socket, from));
    await ztunnel.#listen(ZTUNNEL_PORT.inboundPlaintext, (socket, from) => ztunnel.#inbound(socket, from));
    await ztunnel.#listen(ZTUNNEL_PORT.outbound, (socket, from) => ztunnel.#outbound(socket, from));
    return ztunnel;
  }

  /** Closes the listeners; open connections live on. */
  async closeListeners(): Promise<void> {
    for (const datagram of this.#datagrams.splice(0)) datagram.close();
    const closing = this.#servers.splice(0).map((server) => {
      const closed = once(server, "close");
      server.close();
      for (const socket of this.#sockets) socket.unref();
      return closed;
    });
    await Promise.race([Promise.all(closing), new Promise((resolve) => setTimeout(resolve, 20))]);
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await this.closeListeners();
  }

  /** Ports on which a connection with this original destination was accepted. */
  via(original: Endpoint): number[] {
    return this.accepted
      .filter((entry) => entry.original.address === original.address && entry.original.port === original.port)
      .map(({ port }) => port);
  }

  async #listen(port: number, handle: (socket: Socket, from: Accepted) => void): Promise<void> {
    const fd = native().tcpListen(this.netns.fd, {
      ...ztunnelSocket(6, "::", port),
      transparent: true,
      backlog: 128,
    });
    const server = createServer({ allowHalfOpen: true });
    server.on("connection", (socket) => {
      this.#keep(socket);
      const accepted = fdOf(socket);
      const { remoteAddress = "", remotePort = 0 } = socket;
      const original = native().originalDestination(accepted) ?? native().localEndpoint(accepted);
      const from: Accepted = {
        port,
        peer: canonical({ address: remoteAddress, port: remotePort }),
        original: canonical(original),
      };
      this.accepted.push(from);
      handle(socket, from);
    });
    server.listen({ fd });
    this.#servers.push(server);
    await once(server, "listening");
  }

  #keep(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on("close", () => this.#sockets.delete(socket));
    socket.on("error", () => undefined);
  }

  #hbone(socket: Socket, { original, peer }: Accepted): void {
    const { hboneTo } = this.options;
    if (hboneTo === undefined) this.#greet(socket, "hbone");
    else void this.#relay(socket, { address: original.address, port: hboneTo }, peer);
  }

  #greet(socket: Socket, name: string): void {
    const fd = fdOf(socket);
    const ends = { local: canonical(native().localEndpoint(fd)), remote: canonical(native().remoteEndpoint(fd)) };
    socket.write(`${JSON.stringify({ name, ...ends })}\n`);
    socket.pipe(socket);
  }

  /** ztunnel refuses its own ports only for loopback destinations here. */
  #outbound(socket: Socket, { original }: Accepted): void {
    const loopback = original.address === "::1" || original.address.startsWith("127.");
    if (loopback && ILLEGAL_PORTS.includes(original.port)) {
      socket.destroy();
      return;
    }
    void this.#relay(socket, original, undefined);
  }

  #inbound(socket: Socket, { original, peer }: Accepted): void {
    if (ILLEGAL_PORTS.includes(original.port)) {
      socket.destroy();
      return;
    }
    void this.#relay(socket, original, original.address === peer.address ? undefined : peer);
  }

  async #relay(socket: Socket, to: Endpoint, wear: Endpoint | undefined): Promise<void> {
    const family: AddressFamily = to.address.includes(":") ? 6 : 4;
    try {
      const fd = await native().tcpConnect(this.netns.fd, {
        family,
        address: to.address,
        port: to.port,
        timeout: 10_000,
        mark: ZTUNNEL_MARK,
        ...(wear === undefined
          ? {}
          : {
              transparent: true,
              freebind: true,
              bind: { address: wear.address, port: this.options.legPort?.(wear) ?? 0 },
            }),
      });
      const leg = new Socket({ fd, allowHalfOpen: true });
      this.#keep(leg);
      leg.setNoDelay(true);
      socket.setNoDelay(true);
      socket.pipe(leg);
      leg.pipe(socket);
      socket.on("close", () => leg.destroy());
      leg.on("close", () => socket.destroy());
    } catch (error) {
      this.failures.push(String(error));
      socket.destroy();
    }
  }

  async #dns(family: AddressFamily, address: string): Promise<void> {
    const options = ztunnelSocket(family, address, ZTUNNEL_PORT.dns);
    const datagram = createSocket(family === 4 ? "udp4" : "udp6");
    datagram.on("message", (message, from) => {
      const text = message.toString();
      this.questions.push({ protocol: "udp", text });
      datagram.send(isStatusQuery(message) ? notImplemented(message) : `answer:${text}`, from.port, from.address);
    });
    // With an fd Node emits `listening` before bind returns.
    datagram.bind({ fd: native().udpSocket(this.netns.fd, options) });
    this.#datagrams.push(datagram);
    const server = createServer((socket) => {
      this.#keep(socket);
      socket.on("data", (chunk) => {
        const text = chunk.toString().trim();
        this.questions.push({ protocol: "tcp", text });
        socket.write(`answer:${text}\n`);
      });
    });
    server.listen({ fd: native().tcpListen(this.netns.fd, { ...options, backlog: 128 }) });
    await once(server, "listening");
    this.#servers.push(server);
  }
}

function ztunnelSocket(family: AddressFamily, address: string, port: number): ListenOptions {
  return { family, bind: { address, port }, mark: ZTUNNEL_MARK, reusePort: true };
}

/** Node has no public way to the fd of an accepted socket, and ztunnel's question is asked on that one. */
function fdOf(socket: Socket): number {
  const handle = (socket as unknown as { readonly _handle?: { readonly fd: number } | null })._handle;
  if (handle === undefined || handle === null) throw new Error("the socket is closed");
  return handle.fd;
}

/** Opcode STATUS of a DNS message (RFC 1035 4.1.1); the tests' questions are words. */
function isStatusQuery(message: Buffer): boolean {
  return message.length > 12 && (message[2] ?? 0) >> 3 === 2;
}

/** As ztunnel answers what is no query: the header alone, with QR and NOTIMP. */
function notImplemented(message: Buffer): Buffer {
  const header = Buffer.alloc(12);
  message.copy(header, 0, 0, 2);
  header.writeUInt16BE(0x8000 | (2 << 11) | 4, 2);
  return header;
}
