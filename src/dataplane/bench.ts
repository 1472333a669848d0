// SPDX-License-Identifier: Apache-2.0
// Sockets of self-tests in a scratch pair: who answered, and what each end saw.
import { createSocket } from "node:dgram";
import { setTimeout as sleep } from "node:timers/promises";
import type { AddressFamily, Endpoint, NativeBinding, SocketOptions } from "../native/binding.ts";
import type { ScratchPair } from "./scratch.ts";

const TIMEOUT_MS = 2000;

/** Sockets of one test run; all of them are closed with it. */
export class Bench {
  readonly #fds: number[] = [];

  constructor(
    readonly binding: NativeBinding,
    readonly pair: ScratchPair,
  ) {}

  listen(
    family: AddressFamily,
    address: string,
    port: number,
    options: Partial<SocketOptions>,
    netns = this.pair.pod.fd,
  ): number {
    const fd = this.binding.tcpListen(netns, { ...options, family, bind: { address, port } });
    this.#fds.push(fd);
    return fd;
  }

  async connect(netns: number, family: AddressFamily, to: Endpoint, options: Partial<SocketOptions>): Promise<number> {
    const fd = await this.binding.tcpConnect(netns, { ...options, ...to, family, timeout: TIMEOUT_MS });
    this.#fds.push(fd);
    return fd;
  }

  /** The connection is complete on the caller's side, so it waits already or is a moment away. */
  async accept(listener: number, port: number): Promise<number> {
    const until = performance.now() + TIMEOUT_MS;
    for (;;) {
      const fd = this.binding.tcpAccept(listener);
      if (fd >= 0) {
        this.#fds.push(fd);
        return fd;
      }
      if (performance.now() > until) throw new Error(`somebody else than port ${port} answered`);
      await sleep(1);
    }
  }

  /** As ztunnel reads it: without NAT, the local address. */
  original(fd: number): Endpoint {
    return unmapped(this.binding.originalDestination(fd) ?? this.binding.localEndpoint(fd));
  }

  peer(fd: number): Endpoint {
    return unmapped(this.binding.remoteEndpoint(fd));
  }

  close(): void {
    for (const fd of this.#fds.splice(0)) this.binding.close(fd);
  }
}

/** Asks `to`, lets `server` answer, and tells from whom the answer came. Takes over both fds. */
export async function exchangeDatagram(
  family: AddressFamily,
  server: number,
  asker: number,
  to: Endpoint,
): Promise<Endpoint> {
  return sendDatagram(family, server, asker, to, true);
}

/** Sends to `to` and waits until it has come to `server`. Takes over both fds. */
export async function deliverDatagram(
  family: AddressFamily,
  server: number,
  asker: number,
  to: Endpoint,
): Promise<void> {
  await sendDatagram(family, server, asker, to, false);
}

async function sendDatagram(
  family: AddressFamily,
  server: number,
  asker: number,
  to: Endpoint,
  answered: boolean,
): Promise<Endpoint> {
  const type = family === 4 ? "udp4" : "udp6";
  const answering = createSocket(type);
  const asking = createSocket(type);
  try {
    if (answered) answering.on("message", (message, from) => answering.send(message, from.port, from.address));
    answering.bind({ fd: server });
    asking.bind({ fd: asker });
    return await new Promise<Endpoint>((resolve, reject) => {
      const late = setTimeout(() => reject(new Error("no answer to a UDP question")), TIMEOUT_MS);
      (answered ? asking : answering).on("message", (_, from) => {
        clearTimeout(late);
        resolve({ address: from.address, port: from.port });
      });
      asking.on("error", reject);
      asking.send("question", to.port, to.address);
    });
  } finally {
    answering.close();
    asking.close();
  }
}

/** @throws Error that names the step. */
export async function step(name: string, run: () => Promise<void>): Promise<void> {
  try {
    await run();
  } catch (error) {
    throw new Error(`${name}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  }
}

function unmapped({ address, port }: Endpoint): Endpoint {
  return { address: address.replace(/^::ffff:(?=\d+\.)/, ""), port };
}

/** @throws Error that names what was seen. */
export function expectEqual(what: string, seen: Endpoint, wanted: Endpoint): void {
  if (seen.address !== wanted.address || seen.port !== wanted.port) {
    throw new Error(`${what} is ${seen.address} port ${seen.port}, not ${wanted.address} port ${wanted.port}`);
  }
}
