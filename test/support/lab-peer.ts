// SPDX-License-Identifier: Apache-2.0
// Peers that tell who answered and which addresses each end saw.
import { once } from "node:events";
import { createServer, type Server, Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import type { AddressFamily, Endpoint, SocketOptions } from "../../src/native/binding.ts";
import { native } from "../../src/native/load.ts";
import type { HeldNetns } from "../../src/native/netns.ts";

/** What an answering peer says about itself in its first line. */
export interface Greeting {
  readonly name: string;
  /** The peer's own end. */
  readonly local: Endpoint;
  /** Who it thinks called. */
  readonly remote: Endpoint;
}

const DEADLINE_MS = 5000;

/** `[::ffff:a.b.c.d]` of a dual-stack socket reads as IPv4, as ztunnel does. */
export function canonical(endpoint: Endpoint): Endpoint {
  return { ...endpoint, address: endpoint.address.replace(/^::ffff:(?=\d+\.)/, "") };
}

/** A TCP server that greets, then echoes. */
export class EchoServer {
  readonly sockets = new Set<Socket>();
  private constructor(
    readonly server: Server,
    readonly port: number,
  ) {}

  static async start(netns: HeldNetns, name: string, options: SocketOptions): Promise<EchoServer> {
    const fd = native().tcpListen(netns.fd, { ...options, backlog: 4096 });
    const { port } = native().localEndpoint(fd);
    const server = createServer();
    const echo = new EchoServer(server, port);
    server.on("connection", (socket) => {
      echo.sockets.add(socket);
      socket.on("close", () => echo.sockets.delete(socket));
      socket.on("error", () => undefined);
      const { localAddress = "", localPort = 0, remoteAddress = "", remotePort = 0 } = socket;
      const greeting: Greeting = {
        name,
        local: canonical({ address: localAddress, port: localPort }),
        remote: canonical({ address: remoteAddress, port: remotePort }),
      };
      socket.write(`${JSON.stringify(greeting)}\n`);
      socket.pipe(socket);
    });
    server.listen({ fd });
    await once(server, "listening");
    return echo;
  }

  async close(): Promise<void> {
    for (const socket of this.sockets) socket.destroy();
    await new Promise<void>((resolve) => this.server.close(() => resolve()));
  }
}

/** A client's end of a connection. */
export class Call {
  #buffer = "";
  #waiting: (() => void)[] = [];
  readonly socket: Socket;
  /** What `getpeername` and `getsockname` said right after connect. */
  readonly peer: Endpoint;
  readonly own: Endpoint;
  failure: Error | undefined;
  ended = false;

  private constructor(fd: number) {
    this.peer = native().remoteEndpoint(fd);
    this.own = native().localEndpoint(fd);
    this.socket = new Socket({ fd });
    this.socket.setEncoding("utf8");
    this.socket.on("data", (chunk: string) => {
      this.#buffer += chunk;
      this.#wake();
    });
    this.socket.on("error", (error) => {
      this.failure = error;
      this.#wake();
    });
    this.socket.on("end", () => {
      this.ended = true;
      this.#wake();
    });
  }

  /** @throws NativeError ECONNREFUSED, ETIMEDOUT, ... */
  static async open(
    netns: HeldNetns,
    family: AddressFamily,
    address: string,
    port: number,
    options: Partial<SocketOptions> & { readonly timeout?: number } = {},
  ): Promise<Call> {
    const fd = await native().tcpConnect(netns.fd, { timeout: DEADLINE_MS, ...options, family, address, port });
    return new Call(fd);
  }

  /** The first line of whoever answered. */
  async greeting(): Promise<Greeting> {
    return JSON.parse(await this.line());
  }

  /** @throws Error when the connection fails, ends or stays silent. */
  async line(deadline = DEADLINE_MS): Promise<string> {
    const until = performance.now() + deadline;
    for (;;) {
      const end = this.#buffer.indexOf("\n");
      if (end >= 0) {
        const line = this.#buffer.slice(0, end);
        this.#buffer = this.#buffer.slice(end + 1);
        return line;
      }
      if (this.failure !== undefined) throw this.failure;
      if (this.ended) throw new Error("connection ended");
      if (performance.now() > until) throw new Error(`no line within ${deadline} ms`);
      await this.#news();
    }
  }

  /** Waits until the other side has closed its direction. */
  async end(): Promise<void> {
    while (!this.ended && this.failure === undefined) await this.#news();
    if (this.failure !== undefined) throw this.failure;
  }

  /** Sends a line and reads it back: the connection is alive, both ways. */
  async echo(text: string): Promise<string> {
    this.socket.write(`${text}\n`);
    return await this.line();
  }

  close(): void {
    this.socket.destroy();
  }

  async #news(): Promise<void> {
    await Promise.race([new Promise<void>((resolve) => this.#waiting.push(resolve)), sleep(50)]);
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

/** How a connection attempt ended: the greeter's name, or an errno name. */
export async function outcome(attempt: Promise<Call>): Promise<string> {
  let call: Call;
  try {
    call = await attempt;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? String(error);
  }
  try {
    return (await call.greeting()).name;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? "closed";
  } finally {
    call.close();
  }
}
