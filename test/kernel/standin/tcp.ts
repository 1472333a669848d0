// SPDX-License-Identifier: Apache-2.0
// TCP ends inside pods that tell which addresses they saw and can be closed one way at a time.
import { once } from "node:events";
import { createServer, type Server, Socket } from "node:net";
import { canonicalIp } from "../../../src/core/ip.ts";
import type { AddressFamily, Endpoint } from "../../../src/native/binding.ts";
import { native } from "../../../src/native/load.ts";
import type { TestPod } from "./pods.ts";

const DEADLINE_MS = 8_000;

export function ipOf(pod: TestPod, family: AddressFamily): string {
  return family === 4 ? pod.ipv4 : pod.ipv6;
}

/** One end of a connection; nothing is read until somebody asks. */
export class End {
  private received = Buffer.alloc(0);
  private over = false;
  /** Set when the end was a reset or another error. */
  error: Error | undefined;
  private wake: () => void = () => {};

  constructor(readonly socket: Socket) {
    socket.on("data", (chunk: Buffer) => {
      this.received = Buffer.concat([this.received, chunk]);
      this.wake();
    });
    const finish = () => {
      this.over = true;
      this.wake();
    };
    socket.on("end", finish);
    socket.on("close", finish);
    socket.on("error", (error) => {
      this.error = error;
    });
  }

  get remote(): Endpoint {
    return { address: canonicalIp(this.socket.remoteAddress ?? ""), port: this.socket.remotePort ?? 0 };
  }

  get local(): Endpoint {
    return { address: canonicalIp(this.socket.localAddress ?? ""), port: this.socket.localPort ?? 0 };
  }

  send(text: string): void {
    this.socket.write(text);
  }

  /** FIN. */
  finish(): void {
    this.socket.end();
  }

  /** RST. */
  reset(): void {
    this.socket.resetAndDestroy();
  }

  /** Reads exactly this. */
  async expect(text: string): Promise<void> {
    await this.until(() => this.received.length >= text.length);
    const got = this.received.subarray(0, text.length).toString();
    if (got !== text) throw new Error(`expected ${JSON.stringify(text)}, got ${JSON.stringify(got)}`);
    this.received = this.received.subarray(text.length);
  }

  /** Waits for FIN or RST; returns what came before it. */
  async end(): Promise<string> {
    await this.until(() => this.over);
    return this.received.toString();
  }

  private async until(condition: () => boolean): Promise<void> {
    const deadline = performance.now() + DEADLINE_MS;
    while (!condition()) {
      const left = deadline - performance.now();
      if (left <= 0)
        throw new Error(`still waiting after ${DEADLINE_MS} ms; have ${JSON.stringify(this.received.toString())}`);
      if (this.over) throw new Error(`ended: ${this.error?.message ?? "FIN"}`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        this.wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }
}

/** Connects from a pod. @throws NativeError ECONNREFUSED, ETIMEDOUT, ... */
export async function dial(pod: TestPod, family: AddressFamily, address: string, port: number): Promise<End> {
  const fd = await native().tcpConnect(pod.netns.fd, { family, address, port, timeout: DEADLINE_MS });
  return new End(new Socket({ fd, allowHalfOpen: true, readable: true, writable: true }));
}

/** A server in a pod: dual stack, hands out its connections in order. */
export class Listener implements Disposable {
  private readonly arrived: Socket[] = [];
  private readonly all = new Set<Socket>();
  private wake: () => void = () => {};

  private constructor(private readonly server: Server) {
    server.on("connection", (socket) => {
      socket.on("error", () => {});
      this.all.add(socket);
      this.arrived.push(socket);
      this.wake();
    });
  }

  static async open(pod: TestPod, port: number): Promise<Listener> {
    const options = { family: 6, bind: { address: "::", port }, reuseAddress: true, backlog: 4096 } as const;
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: true });
    const listener = new Listener(server);
    const listening = once(server, "listening");
    server.listen({ fd: native().tcpListen(pod.netns.fd, options) }, 4096);
    await listening;
    return listener;
  }

  async accept(): Promise<End> {
    const socket = await this.acceptPaused();
    const end = new End(socket);
    socket.resume();
    return end;
  }

  /** A connection that does not read. */
  async acceptPaused(): Promise<Socket> {
    if (this.arrived.length === 0) {
      await new Promise<void>((resolve, reject) => {
        const timer = setTimeout(() => reject(new Error("nobody connected")), DEADLINE_MS);
        this.wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    const socket = this.arrived.shift();
    if (socket === undefined) throw new Error("nobody connected");
    return socket;
  }

  /** Answers every connection with `name` and what it sends, from now on. */
  echo(name: string): void {
    this.server.removeAllListeners("connection");
    this.server.on("connection", (socket) => {
      this.all.add(socket);
      socket.on("close", () => this.all.delete(socket));
      socket.on("error", () => {});
      socket.write(`${name} ${canonicalIp(socket.remoteAddress ?? "")}\n`);
      socket.pipe(socket);
    });
  }

  [Symbol.dispose](): void {
    this.server.close();
    for (const socket of this.all) socket.destroy();
  }
}
