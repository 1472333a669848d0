// SPDX-License-Identifier: Apache-2.0
// The client side of HBONE: HTTP/2 connections over mutual TLS, shared by tunnels of one key, as in
// ztunnel's src/proxy/pool.rs.
import { once } from "node:events";
import { STATUS_CODES } from "node:http";
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  constants,
  type OutgoingHttpHeaders,
} from "node:http2";
import type { Socket } from "node:net";
import { type TLSSocket, connect as tlsConnect } from "node:tls";
import { messageOf } from "../../core/errors.ts";
import type { Endpoint } from "../../native/binding.ts";
import type { Credentials } from "../identity/authority.ts";
import { spiffeIdsOf } from "../identity/spiffe.ts";
import { formatEndpoint } from "./directory.ts";
import { keepAsking } from "./h2-ping.ts";

const HANDSHAKE_TIMEOUT_MS = 10_000;
const RESPONSE_TIMEOUT_MS = 15_000;

/** ztunnel's windows: 4 MiB for a stream, 16 MiB for a connection, frames up to 1 MiB (its src/config.rs). */
export const STREAM_WINDOW = 4 * 1024 * 1024;
export const CONNECTION_WINDOW = 16 * 1024 * 1024;
export const FRAME_SIZE = 1024 * 1024;
/** Node's own cap on what one session may hold, in MB: above what the windows allow. */
export const SESSION_MEMORY = 256;

export interface TunnelRequest {
  readonly source: Credentials;
  /** SPIFFE id that the other side must prove. */
  readonly peerIdentity: string;
  /** Address of the client whose bytes these are: tunnels of two clients never share a connection. */
  readonly client: string;
  /** The other side's HBONE port. */
  readonly server: Endpoint;
  /** `ip:port` behind it. */
  readonly target: string;
  readonly headers: OutgoingHttpHeaders;
}

export interface PoolOptions {
  readonly dial: (server: Endpoint) => Promise<Socket>;
  readonly rootCertificate: string;
  readonly maxStreams: number;
  readonly idleMs: number;
}

interface Pooled {
  readonly session: ClientHttp2Session;
  streams: number;
  idle: NodeJS.Timeout | undefined;
}

/** A stream that the server never looked at. */
class RefusedStream extends Error {}

/** The connections of one key. */
interface Slot {
  readonly connections: Set<Pooled>;
  /** One caller at a time looks and dials, so that a burst opens one connection and not one each. */
  turn: Promise<unknown>;
}

export class HbonePool {
  private readonly slots = new Map<string, Slot>();
  private closed = false;

  constructor(private readonly options: PoolOptions) {}

  /** A tunnel whose CONNECT was answered with 200. @throws Error that says which step failed. */
  async open(request: TunnelRequest): Promise<ClientHttp2Stream> {
    try {
      return await this.tryOpen(request);
    } catch (error) {
      // RFC 9113 8.7: nothing was done with it; the server was saying goodbye when it arrived.
      if (error instanceof RefusedStream) return this.tryOpen(request);
      throw error;
    }
  }

  private async tryOpen(request: TunnelRequest): Promise<ClientHttp2Stream> {
    const pooled = await this.checkOut(request);
    let stream: ClientHttp2Stream;
    try {
      stream = startTunnel(pooled.session, request);
    } catch (error) {
      this.checkIn(pooled);
      throw error;
    }
    stream.once("close", () => this.checkIn(pooled));
    await answered(stream);
    return stream;
  }

  /** Cuts everything. */
  destroy(): void {
    this.closed = true;
    for (const pooled of this.connections()) pooled.session.destroy();
  }

  private connections(): Pooled[] {
    return [...this.slots.values()].flatMap((slot) => [...slot.connections]);
  }

  /** Counts a stream on a connection with room, or on a new one. */
  private checkOut(request: TunnelRequest): Promise<Pooled> {
    const { source, peerIdentity, client, server } = request;
    const key = [source.identity, peerIdentity, client, formatEndpoint(server)].join(" ");
    const slot = this.slots.get(key) ?? { connections: new Set(), turn: Promise.resolve() };
    this.slots.set(key, slot);
    const turn = slot.turn.then(async () => {
      if (this.closed) throw new Error("pool draining");
      const pooled = this.withRoom(slot) ?? (await this.dial(slot, request));
      pooled.streams += 1;
      clearTimeout(pooled.idle);
      return pooled;
    });
    slot.turn = turn.catch(() => {});
    return turn;
  }

  private withRoom(slot: Slot): Pooled | undefined {
    for (const pooled of slot.connections) {
      const { session, streams } = pooled;
      if (streams < this.options.maxStreams && !session.closed && !session.destroyed) return pooled;
    }
    return undefined;
  }

  private checkIn(pooled: Pooled): void {
    pooled.streams -= 1;
    if (pooled.streams > 0) return;
    pooled.idle = setTimeout(() => pooled.session.close(), this.options.idleMs);
    pooled.idle.unref();
  }

  private async dial(slot: Slot, request: TunnelRequest): Promise<Pooled> {
    const raw = await this.options.dial(request.server);
    const secure = await handshake(raw, request, this.options.rootCertificate);
    if (this.closed) {
      secure.destroy();
      throw new Error("pool draining");
    }
    const session = connect(`https://${formatEndpoint(request.server)}`, {
      createConnection: () => secure,
      maxSessionMemory: SESSION_MEMORY,
      settings: { initialWindowSize: STREAM_WINDOW, maxFrameSize: FRAME_SIZE, enablePush: false },
    });
    // A failed session fails its streams, and those report it.
    session.on("error", () => {});
    session.once("connect", () => {
      session.setLocalWindowSize(CONNECTION_WINDOW);
      keepAsking(session);
    });
    const pooled: Pooled = { session, streams: 0, idle: undefined };
    slot.connections.add(pooled);
    session.once("close", () => {
      clearTimeout(pooled.idle);
      slot.connections.delete(pooled);
    });
    return pooled;
  }
}

/** TLS 1.3 with our certificate; the peer's must come from the same root and carry the identity asked for. */
async function handshake(raw: Socket, request: TunnelRequest, rootCertificate: string): Promise<TLSSocket> {
  const secure = tlsConnect({
    socket: raw,
    key: request.source.key,
    cert: request.source.certificate,
    ca: rootCertificate,
    minVersion: "TLSv1.3",
    ALPNProtocols: ["h2"],
    rejectUnauthorized: true,
    // Names play no part in SPIFFE: the identity is the whole check.
    checkServerIdentity: (_host, certificate) => {
      const ids = spiffeIdsOf(certificate.subjectaltname);
      if (ids.includes(request.peerIdentity)) return undefined;
      return new Error(`identity verification error: peer did not present ${request.peerIdentity}, but [${ids}]`);
    },
  });
  const timeout = setTimeout(() => secure.destroy(new Error("TLS handshake timed out")), HANDSHAKE_TIMEOUT_MS);
  try {
    await once(secure, "secureConnect");
    return secure;
  } catch (error) {
    secure.destroy();
    throw new Error(`tls error: ${messageOf(error)}`, { cause: error });
  } finally {
    clearTimeout(timeout);
  }
}

function startTunnel(session: ClientHttp2Session, request: TunnelRequest): ClientHttp2Stream {
  const { HTTP2_HEADER_METHOD, HTTP2_HEADER_AUTHORITY } = constants;
  return session.request(
    { [HTTP2_HEADER_METHOD]: "CONNECT", [HTTP2_HEADER_AUTHORITY]: request.target, ...request.headers },
    { endStream: false },
  );
}

/** Waits for the 200. @throws Error with the status, or with what broke the stream. */
async function answered(stream: ClientHttp2Stream): Promise<void> {
  stream.setTimeout(RESPONSE_TIMEOUT_MS, () => stream.destroy(new Error("no answer to CONNECT")));
  // Kept for the stream's life: a late error has been told by then, and must not end the process.
  stream.on("error", () => {});
  const status = await new Promise<number | undefined>((resolve, reject) => {
    stream.once("response", (headers) => resolve(headers[":status"]));
    stream.once("error", (error) => {
      const Failure = stream.rstCode === constants.NGHTTP2_REFUSED_STREAM ? RefusedStream : Error;
      reject(new Failure(`h2 failed: ${messageOf(error)}`, { cause: error }));
    });
    stream.once("close", () => reject(new Error("h2 failed: stream closed before an answer")));
  });
  stream.setTimeout(0);
  if (status === 200) return;
  stream.close(constants.NGHTTP2_CANCEL);
  const reason = STATUS_CODES[Number(status)];
  throw new Error(`http status: ${status}${reason === undefined ? "" : ` ${reason}`}`);
}
