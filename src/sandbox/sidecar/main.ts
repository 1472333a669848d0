// SPDX-License-Identifier: Apache-2.0
// A stand-in for istio-proxy: Envoy's two listeners and pilot-agent's DNS server, without xDS. What comes by
// 15001 goes on to where it was going (or to the endpoint of a service), what comes by 15006 to the
// application, as Envoy's passthrough does: from 127.0.0.6, in TPROXY mode from the client's address.
import { createSocket } from "node:dgram";
import { createServer, Socket } from "node:net";
import * as v from "valibot";
import { SIDECAR_MARK, SIDECAR_PORT } from "../../core/constants.ts";
import { codeOf } from "../../core/errors.ts";
import { canonicalIp, type Family, familyOf } from "../../core/ip.ts";
import type { ConnectOptions, Endpoint } from "../../native/binding.ts";
import { native } from "../../native/load.ts";
import { relay } from "../ztunnel/relay.ts";
import { fdOf } from "../ztunnel/socket-fd.ts";
import { becomeUser } from "./identity.ts";
import { SIDECAR_OPTIONS, type SidecarEvent, type SidecarOptions } from "./options.ts";

const PASSTHROUGH = { 4: "127.0.0.6", 6: "::6" } as const;
const LOOPBACK = { 4: "127.0.0.1", 6: "::1" } as const;
const CONNECT_MS = 5000;
const NOBODY = { addSent: () => undefined, addReceived: () => undefined };
const OWN_PORTS: readonly number[] = [SIDECAR_PORT.outbound, SIDECAR_PORT.inbound];

/** Serves until it is ended. `argument`: SidecarOptions as JSON. @throws ValiError, NativeError. */
export function runSidecar(argument: string): void {
  const options = v.parse(SIDECAR_OPTIONS, JSON.parse(argument));
  // The addon, its file, is read as whoever started us.
  native();
  becomeUser(options);
  const sidecar = new Sidecar(options);
  for (const family of options.ipv6 ? ([4, 6] as const) : ([4] as const)) sidecar.serveDns(family);
  sidecar.listen(SIDECAR_PORT.tunnel, (socket) => socket.end("tunnel\n"));
  sidecar.listen(SIDECAR_PORT.inbound, (socket, peer, original) => sidecar.inbound(socket, peer, original));
  sidecar.listen(SIDECAR_PORT.outbound, (socket, _, original) => sidecar.outbound(socket, original));
  tell({ event: "ready" });
}

function tell(event: SidecarEvent): void {
  process.stdout.write(`${JSON.stringify(event)}\n`);
}

type Handler = (socket: Socket, peer: Endpoint, original: Endpoint) => void;

class Sidecar {
  constructor(private readonly options: SidecarOptions) {}

  listen(port: number, handle: Handler): void {
    const { ipv6, transparent } = this.options;
    const any = ipv6 ? ({ family: 6, address: "::" } as const) : ({ family: 4, address: "0.0.0.0" } as const);
    const fd = native().tcpListen(null, {
      family: any.family,
      bind: { address: any.address, port },
      transparent: transparent && port === SIDECAR_PORT.inbound,
      backlog: 1024,
    });
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => {
      socket.on("error", () => socket.destroy());
      const ends = endsOf(socket);
      if (ends === undefined) {
        socket.destroy();
        return;
      }
      const { peer, original } = ends;
      tell({ event: "accepted", port, peer: text(peer), original: text(original) });
      handle(socket, peer, original);
    });
    server.listen({ fd });
  }

  outbound(socket: Socket, original: Endpoint): void {
    // Envoy would close it too: nothing was redirected here.
    if (OWN_PORTS.includes(original.port)) socket.destroy();
    else void this.#forward(socket, endpoint(this.options.services[text(original)]) ?? original, {});
  }

  inbound(socket: Socket, peer: Endpoint, original: Endpoint): void {
    if (OWN_PORTS.includes(original.port)) socket.destroy();
    else if (this.options.transparent) {
      const bind = { address: peer.address, port: 0 };
      void this.#forward(socket, original, { bind, transparent: true, freebind: true, mark: SIDECAR_MARK.inbound });
    } else {
      const address = PASSTHROUGH[familyOf(original.address)];
      void this.#forward(socket, original, { bind: { address, port: 0 } });
    }
  }

  serveDns(family: Family): void {
    const bind = { address: LOOPBACK[family], port: SIDECAR_PORT.dns };
    const datagrams = createSocket(family === 4 ? "udp4" : "udp6");
    datagrams.on("message", (message, from) => {
      tell({ event: "question", protocol: "udp", text: message.toString() });
      datagrams.send(`answer:${message}`, from.port, from.address);
    });
    datagrams.bind({ fd: native().udpSocket(null, { family, bind }) });
    const server = createServer((socket) => {
      socket.on("error", () => socket.destroy());
      socket.on("data", (chunk: Buffer) => {
        const question = chunk.toString().trim();
        tell({ event: "question", protocol: "tcp", text: question });
        socket.write(`answer:${question}\n`);
      });
    });
    server.listen({ fd: native().tcpListen(null, { family, bind, backlog: 128 }) });
  }

  async #forward(socket: Socket, to: Endpoint, own: Partial<ConnectOptions>): Promise<void> {
    try {
      const family = familyOf(to.address);
      const fd = await native().tcpConnect(null, { ...own, ...to, family, timeout: CONNECT_MS });
      const leg = new Socket({ fd, allowHalfOpen: true });
      leg.on("error", () => leg.destroy());
      leg.pause();
      await relay(socket, leg, NOBODY);
    } catch {
      // As Envoy: the caller sees its connection close.
      socket.destroy();
    }
  }
}

/** Who calls, and whom; undefined: the connection has been reset before anybody looked at it. */
function endsOf(socket: Socket): { readonly peer: Endpoint; readonly original: Endpoint } | undefined {
  const fd = fdOf(socket);
  try {
    const peer = canonical(native().remoteEndpoint(fd));
    return { peer, original: canonical(native().originalDestination(fd) ?? native().localEndpoint(fd)) };
  } catch (error) {
    if (codeOf(error) === "ENOTCONN") return undefined;
    throw error;
  }
}

function canonical({ address, port }: Endpoint): Endpoint {
  return { address: canonicalIp(address), port };
}

function text({ address, port }: Endpoint): string {
  return `${address}:${port}`;
}

function endpoint(target: string | undefined): Endpoint | undefined {
  if (target === undefined) return undefined;
  const at = target.lastIndexOf(":");
  return { address: target.slice(0, at), port: Number(target.slice(at + 1)) };
}
