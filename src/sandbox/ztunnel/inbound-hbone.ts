// SPDX-License-Identifier: Apache-2.0
// Port 15008: HTTP/2 CONNECT over mutual TLS (ztunnel's src/proxy/inbound.rs).
import {
  constants,
  createSecureServer,
  type Http2SecureServer,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from "node:http2";
import { isIP, type Socket } from "node:net";
import { TLSSocket } from "node:tls";
import { messageOf } from "../../core/errors.ts";
import { canonicalIp } from "../../core/ip.ts";
import type { Endpoint } from "../../native/binding.ts";
import { parseSpiffeId, spiffeIdsOf } from "../identity/spiffe.ts";
import { ConnectionRecord, identityOf, logEarlyDeny } from "./connection-record.ts";
import { best, formatEndpoint } from "./directory.ts";
import { keepAsking } from "./h2-ping.ts";
import { CONNECTION_WINDOW, FRAME_SIZE, SESSION_MEMORY, STREAM_WINDOW } from "./hbone-pool.ts";
import { serviceFor, targetPort } from "./inbound-service.ts";
import type { MeshWorkload } from "./mesh.ts";
import { baggage } from "./outbound.ts";
import { ioErrorText } from "./pod-sockets.ts";
import { CUT, isIllegalPort, type ProxyContext, SELF_CALL } from "./proxy-context.ts";
import { relay } from "./relay.ts";

const LAST_POSSIBLE_STREAM = 0x7fff_ffff;
/** Longer than a round trip: what a peer sent before it heard of the end has arrived by then. */
const LAST_CALL_MS = 100;

/** A mutually authenticated HTTP/2 connection. */
interface Peer {
  readonly identity: string;
  readonly client: Endpoint;
  /** Our end: the pod's address, port 15008. */
  readonly local: Endpoint;
}

/** A CONNECT that is refused, and the status that says so. */
class Refusal extends Error {
  constructor(
    readonly status: 400 | 503,
    message: string,
  ) {
    super(message);
  }
}

export class InboundHbone {
  private server: Http2SecureServer | undefined;
  private serverKey = "";
  private draining = false;
  private readonly sessions = new Set<ServerHttp2Session>();

  constructor(private readonly context: ProxyContext) {}

  /** Takes one accepted, paused socket. `transparent`: the application sees the client's address. */
  accept(socket: Socket, transparent: boolean): void {
    const { tracker } = this.context;
    tracker.own(socket);
    const peer = ends(socket);
    if (peer === undefined) return;
    const secure = async () => {
      try {
        const workload = await this.context.local.get();
        this.serverFor(workload, transparent).emit("connection", socket);
      } catch (error) {
        logEarlyDeny(this.context.journal, "inbound", peer.client, peer.local, messageOf(error));
        socket.destroy();
      }
    };
    tracker.run(secure());
  }

  /**
   * Says goodbye in two steps (RFC 9113 6.8): peers open no new tunnels here, those on their way are still
   * served, and the connections end with their last one.
   */
  drain(): void {
    this.draining = true;
    for (const session of this.sessions) this.sayGoodbye(session);
  }

  private sayGoodbye(session: ServerHttp2Session): void {
    if (session.destroyed) return;
    this.context.tracker.run(new Promise((resolve) => session.once("close", resolve)));
    session.goaway(constants.NGHTTP2_NO_ERROR, LAST_POSSIBLE_STREAM);
    const timer = setTimeout(() => session.close(), LAST_CALL_MS);
    session.once("close", () => clearTimeout(timer));
  }

  /** The HTTP/2 server with the workload's certificate; made anew when that is renewed. */
  private serverFor(workload: MeshWorkload, transparent: boolean): Http2SecureServer {
    const { journal, local } = this.context;
    const { key, certificate } = local.certificate(workload);
    if (this.server !== undefined && this.serverKey === key) return this.server;
    const server = createSecureServer({
      key,
      cert: certificate,
      ca: local.rootCertificate,
      requestCert: true,
      rejectUnauthorized: true,
      minVersion: "TLSv1.3",
      ALPNProtocols: ["h2"],
      allowHTTP1: false,
      handshakeTimeout: 10_000,
      maxSessionMemory: SESSION_MEMORY,
      settings: { initialWindowSize: STREAM_WINDOW, maxFrameSize: FRAME_SIZE, maxConcurrentStreams: 200 },
    });
    server.on("tlsClientError", (error, socket) => {
      const peer = ends(socket);
      if (peer !== undefined) logEarlyDeny(journal, "inbound", peer.client, peer.local, `tls error: ${error.message}`);
    });
    server.on("session", (session) => this.begin(session, workload, transparent));
    // A failed session fails its streams, and those report it.
    server.on("sessionError", () => {});
    this.server = server;
    this.serverKey = key;
    return server;
  }

  private begin(session: ServerHttp2Session, workload: MeshWorkload, transparent: boolean): void {
    const { journal, tracker } = this.context;
    const { socket } = session;
    const peer = ends(socket);
    // The certificate itself is verified by now; what is left is who it names.
    const ids = socket instanceof TLSSocket ? spiffeIdsOf(socket.getPeerX509Certificate()?.subjectAltName) : [];
    const identity = ids.find((id) => parseSpiffeId(id).trustDomain === workload.trustDomain);
    if (peer === undefined) {
      session.destroy();
      return;
    }
    if (identity === undefined) {
      const reason = `tls error: identity verification error: peer did not present the expected trust domain (${workload.trustDomain}), but [${ids}]`;
      logEarlyDeny(journal, "inbound", peer.client, peer.local, reason);
      session.destroy();
      return;
    }
    this.sessions.add(session);
    session.once("close", () => this.sessions.delete(session));
    session.setLocalWindowSize(CONNECTION_WINDOW);
    keepAsking(session);
    if (this.draining) this.sayGoodbye(session);
    session.on("stream", (stream, headers) => {
      stream.on("error", () => {});
      tracker.run(this.serve(tracker.own(stream), headers, { ...peer, identity }, transparent));
    });
  }

  private async serve(
    stream: ServerHttp2Stream,
    headers: IncomingHttpHeaders,
    peer: Peer,
    transparent: boolean,
  ): Promise<void> {
    const { journal, local, sockets, tracker } = this.context;
    let workload: MeshWorkload;
    let target: Endpoint;
    let identity: string;
    const authority = headers[":authority"] ?? "";
    try {
      if (headers[":method"] !== "CONNECT") {
        throw new Refusal(400, `expected method CONNECT, got ${headers[":method"]}`);
      }
      workload = await local.get().catch((error: unknown) => {
        throw new Refusal(503, messageOf(error));
      });
      target = this.resolve(authority, peer, workload);
      identity = identityOf(workload);
    } catch (error) {
      logEarlyDeny(journal, "inbound", peer.client, peer.local, messageOf(error));
      refuse(stream, error);
      return;
    }
    const { directory } = local.meshFile;
    const record = new ConnectionRecord(journal, {
      direction: "inbound",
      src: peer.client,
      srcWorkload: directory.workloadAt(peer.client.address),
      srcIdentity: peer.identity,
      dst: peer.local,
      dstWorkload: workload,
      dstIdentity: identity,
      hboneTarget: authority,
      service: serviceFor(directory, workload, target.port, forwardedHost(headers.forwarded)),
    });
    const unlist = tracker.list("inbound", {
      src: formatEndpoint(peer.client),
      originalDst: forwardedHost(headers.forwarded),
      actualDst: formatEndpoint(target),
      protocol: "HBONE",
    });
    try {
      const upstream = await sockets.connect(target, transparent ? peer.client.address : undefined).catch((error) => {
        throw new Refusal(503, `connection failed: ${ioErrorText(error)}`);
      });
      tracker.own(upstream);
      if (stream.destroyed || stream.closed) {
        upstream.destroy();
        throw new Error("stream closed before it was answered");
      }
      stream.respond({ ":status": 200, baggage: baggage(workload) });
      const failure = await relay(stream, upstream, record);
      record.complete(tracker.over ? CUT : failure);
    } catch (error) {
      record.complete(messageOf(error));
      refuse(stream, error);
    } finally {
      unlist();
    }
  }

  /** The endpoint a CONNECT may reach: this pod's own address, no port of ours. @throws Refusal. */
  private resolve(authority: string, peer: Peer, workload: MeshWorkload): Endpoint {
    const wanted = parseAuthority(authority);
    let port = wanted.port;
    if (isIP(wanted.host) !== 0) {
      const address = canonicalIp(wanted.host);
      if (address !== peer.local.address) throw new Refusal(400, `ip mismatch: ${peer.local.address} != ${address}`);
    } else {
      const { directory } = this.context.local.meshFile;
      const service = best(directory.servicesNamed(wanted.host), workload.namespace);
      if (service === undefined) throw new Refusal(503, `no service or workload for hostname: ${wanted.host}`);
      const target = targetPort(service, workload, wanted.port);
      if (target === undefined) {
        throw new Refusal(503, `requested service ${wanted.host}:${wanted.port} found, but cannot resolve port`);
      }
      port = target;
    }
    if (isIllegalPort(port)) throw new Refusal(503, SELF_CALL);
    return { address: peer.local.address, port };
  }
}

function refuse(stream: ServerHttp2Stream, error: unknown): void {
  if (stream.destroyed || stream.closed || stream.headersSent) return;
  stream.respond({ ":status": error instanceof Refusal ? error.status : 503 }, { endStream: true });
}

/** @throws Refusal 400 when the text is no `host:port`. */
function parseAuthority(authority: string): { host: string; port: number } {
  const [, bracketed, plain, portText = ""] = /^(?:\[([0-9A-Fa-f:.]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(authority) ?? [];
  const host = bracketed ?? plain;
  const port = Number(portText);
  if (host === undefined || port > 65535) throw new Refusal(400, `no valid authority pseudo header: ${authority}`);
  return { host, port };
}

function forwardedHost(header: string | undefined): string | undefined {
  return /(?:^|;)\s*host="?([^";]+)"?/i.exec(header ?? "")?.[1];
}

function ends(socket: {
  readonly remoteAddress?: string | undefined;
  readonly remotePort?: number | undefined;
  readonly localAddress?: string | undefined;
  readonly localPort?: number | undefined;
}): { client: Endpoint; local: Endpoint } | undefined {
  const { remoteAddress, remotePort, localAddress, localPort } = socket;
  if (remoteAddress === undefined || remotePort === undefined) return undefined;
  if (localAddress === undefined || localPort === undefined) return undefined;
  return {
    client: { address: canonicalIp(remoteAddress), port: remotePort },
    local: { address: canonicalIp(localAddress), port: localPort },
  };
}
