// SPDX-License-Identifier: Apache-2.0
import { Agent as HttpAgent } from "node:http";
import { Agent as HttpsAgent } from "node:https";
import type { Socket } from "node:net";
import type { TlsIdentity } from "./credentials.ts";

/** A dead peer is noticed by the kernel after 15 s of silence and its default number of probes. */
const KEEP_ALIVE_MS = 15_000;
/** Two watches and a few patches at once; more would only queue inside the API server. */
const MAX_SOCKETS = 16;

/** The connections of one client, so that its end can be one. */
export class Connections {
  readonly #sockets = new Set<Socket>();
  #agent: HttpAgent | undefined;
  #agentFor: string | undefined;
  #closed = false;

  /** One pool per TLS identity: after a rotation nothing goes out on a connection of the old one. */
  agentFor(tls: TlsIdentity | undefined): HttpAgent {
    const wanted = tls?.fingerprint ?? "http";
    if (this.#agent !== undefined && this.#agentFor === wanted) return this.#agent;
    this.closeIdle();
    const pool = { keepAlive: true, keepAliveMsecs: KEEP_ALIVE_MS, maxSockets: MAX_SOCKETS };
    this.#agent =
      tls === undefined
        ? new HttpAgent(pool)
        : new HttpsAgent({
            ...pool,
            secureContext: tls.context,
            rejectUnauthorized: tls.rejectUnauthorized,
            ...(tls.servername === undefined ? {} : { servername: tls.servername }),
          });
    this.#agentFor = wanted;
    return this.#agent;
  }

  track(socket: Socket): void {
    if (this.#sockets.has(socket)) return;
    socket.setKeepAlive(true, KEEP_ALIVE_MS);
    this.#sockets.add(socket);
    socket.once("close", () => this.#sockets.delete(socket));
    if (this.#closed) socket.destroy();
  }

  /** Busy connections (a watch) live to their own end. */
  closeIdle(): void {
    for (const sockets of Object.values(this.#agent?.freeSockets ?? {})) {
      for (const socket of sockets ?? []) socket.destroy();
    }
  }

  /** Resolves when the socket is closed. Not by `socket.closed`: that is true before the event that untracks it. */
  closeSocket(socket: Socket): Promise<void> {
    if (!this.#sockets.has(socket)) return Promise.resolve();
    return new Promise((resolve) => {
      socket.once("close", () => resolve());
      socket.destroy();
    });
  }

  /** Resolves when every socket is closed; what opens later is closed at once. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#agent?.destroy();
    while (this.#sockets.size > 0) {
      await Promise.all([...this.#sockets].map((socket) => this.closeSocket(socket)));
    }
  }
}
