// SPDX-License-Identifier: Apache-2.0
// Sockets in a pod's netns with exactly the options ztunnel sets (its src/inpod/config.rs, src/socket.rs).
import { createSocket, type Socket as UdpSocket } from "node:dgram";
import { once } from "node:events";
import { createServer, type Server, Socket } from "node:net";
import { codeOf, messageOf } from "../../core/errors.ts";
import { canonicalIp, familyOf } from "../../core/ip.ts";
import type { ConnectOptions, Endpoint, ListenOptions, NativeBinding, SocketOptions } from "../../native/binding.ts";
import { type Journal, quoted } from "./journal.ts";
import type { Settings } from "./settings.ts";
import { fdOf } from "./socket-fd.ts";

const BACKLOG = 128;
const CONNECT_TIMEOUT_MS = 10_000;
const KEEPALIVE_MS = 180_000;

/** One listener and whether source addresses can be spoofed through its proxy. */
export interface PodListener {
  readonly server: Server;
  readonly transparent: boolean;
}

export class PodSockets {
  private closed = false;

  constructor(
    private readonly native: NativeBinding,
    /** Borrowed until `close`. */
    private readonly heldNetns: number,
    private readonly settings: Settings,
    private readonly journal: Journal,
  ) {}

  /** After this nothing is opened any more: the number of the netns fd may soon mean another one. */
  close(): void {
    this.closed = true;
  }

  /** True unless the pod turned IPv6 off on lo; a pod we can't ask counts as having it, as with ztunnel. */
  loopbackHasIpv6(): boolean {
    if (!this.settings.ipv6) return false;
    try {
      return this.native.sysctlGet(this.netns, "net/ipv6/conf/lo/disable_ipv6").trim() !== "1";
    } catch (error) {
      if (codeOf(error) === "ENOENT") return false;
      this.journal.log("warn", "dns", "could not tell whether the pod has IPv6", { error: quoted(String(error)) });
      return true;
    }
  }

  /**
   * Listens on all addresses (dual stack where IPv6 is on). Accepted sockets stay paused. A `tunnel` carries
   * TLS and HTTP/2, where one side's FIN is the end of both, and has no keepalive.
   * @throws NativeError of bind or listen; of IP_TRANSPARENT only where it is required.
   */
  async listenOnAll(port: number, tunnel: boolean, accepted: (socket: Socket) => void): Promise<PodListener> {
    const address = this.settings.ipv6 ? "::" : "0.0.0.0";
    const { fd, transparent } = this.openTransparent(address, port);
    const server = await this.serve(fd, !tunnel, (socket) => {
      socket.setNoDelay(true);
      if (!tunnel) socket.setKeepAlive(true, KEEPALIVE_MS);
      accepted(socket);
    });
    return { server, transparent };
  }

  /** A TCP listener that is never transparent (DNS). */
  listenOn(address: string, port: number, accepted: (socket: Socket) => void): Promise<Server> {
    return this.serve(this.native.tcpListen(this.netns, this.listenOptions(address, port)), true, accepted);
  }

  /** A bound UDP socket; port 0 lets the kernel choose. */
  async udp(address: string, port: number): Promise<UdpSocket> {
    const { backlog: _, ...options } = this.listenOptions(address, port);
    const fd = this.native.udpSocket(this.netns, options);
    const socket = createSocket(familyOf(address) === 6 ? "udp6" : "udp4");
    try {
      // Before bind: with an fd the event comes at once. `exclusive` keeps node:cluster out of it.
      const listening = once(socket, "listening");
      socket.bind({ fd, exclusive: true });
      await listening;
    } catch (error) {
      this.native.close(fd);
      throw error;
    }
    return socket;
  }

  /**
   * Connects from inside the pod, marked. With `from` the socket wears that address (any port), unless it
   * is the destination's own; where that is refused it goes out unspoofed, with a warning.
   */
  async connect(to: Endpoint, from?: string): Promise<Socket> {
    return this.adopt(await this.open(to, from), true);
  }

  /** As `connect`, for TLS: one side's FIN is the end of both. */
  async connectTunnel(to: Endpoint): Promise<Socket> {
    return this.adopt(await this.open(to, undefined), false);
  }

  private async open(to: Endpoint, from: string | undefined): Promise<number> {
    const spoof = from === undefined || from === to.address ? undefined : from;
    const plain: ConnectOptions = {
      family: familyOf(to.address),
      address: to.address,
      port: to.port,
      timeout: CONNECT_TIMEOUT_MS,
      ...this.mark(),
    };
    if (spoof === undefined) return this.native.tcpConnect(this.netns, plain);
    try {
      const bind = { address: spoof, port: 0 };
      return await this.native.tcpConnect(this.netns, { ...plain, bind, transparent: true, freebind: true });
    } catch (error) {
      const refused = error instanceof Error && "syscall" in error && /^(bind|setsockopt)$/.test(String(error.syscall));
      if (!refused) throw error;
      this.journal.log("warn", "proxy", "failed to bind local addr", { error: quoted(error.message) });
      return this.native.tcpConnect(this.netns, plain);
    }
  }

  /** Where the client wanted to go: SO_ORIGINAL_DST of IPv4, of IPv6, else the socket's own address. */
  originalDestination(socket: Socket): Endpoint {
    const fd = fdOf(socket);
    const { address, port } = this.native.originalDestination(fd) ?? this.native.localEndpoint(fd);
    return { address: canonicalIp(address), port };
  }

  private get netns(): number {
    if (this.closed) throw new Error("connection closed due to connection drain");
    return this.heldNetns;
  }

  private openTransparent(address: string, port: number): { fd: number; transparent: boolean } {
    const options = this.listenOptions(address, port);
    if (this.settings.originalSource !== "off") {
      try {
        return { fd: this.native.tcpListen(this.netns, { ...options, transparent: true }), transparent: true };
      } catch (error) {
        if (this.settings.originalSource === "require" || codeOf(error) !== "EPERM") throw error;
      }
    }
    return { fd: this.native.tcpListen(this.netns, options), transparent: false };
  }

  private listenOptions(address: string, port: number): ListenOptions {
    return {
      family: familyOf(address),
      bind: { address, port },
      reusePort: this.settings.reusePort,
      // The Rust library's plain bind, which ztunnel uses without INPOD_PORT_REUSE, sets this one.
      reuseAddress: !this.settings.reusePort,
      backlog: BACKLOG,
      ...this.mark(),
    };
  }

  private mark(): Pick<SocketOptions, "mark"> {
    return this.settings.mark === 0 ? {} : { mark: this.settings.mark };
  }

  private adopt(fd: number, allowHalfOpen: boolean): Socket {
    const socket = new Socket({ fd, allowHalfOpen, readable: true, writable: true });
    socket.pause();
    socket.setNoDelay(true);
    socket.setKeepAlive(true, KEEPALIVE_MS);
    return socket;
  }

  private async serve(fd: number, allowHalfOpen: boolean, accepted: (socket: Socket) => void): Promise<Server> {
    const server = createServer({ allowHalfOpen, pauseOnConnect: true }, (socket) => {
      // Errors end up in the relay; before it starts there is nobody to tell.
      socket.on("error", () => {});
      accepted(socket);
    });
    const listening = once(server, "listening");
    // Node forgets options.backlog when it is given an fd, and listen(2) is called again with it.
    server.listen({ fd }, BACKLOG);
    await listening;
    server.on("error", (error) => {
      this.journal.log("error", "proxy", "Failed TCP handshake", { error: quoted(error.message) });
    });
    return server;
  }
}

/** The peer of an accepted socket; undefined when it is gone already. */
export function peerOf(socket: Socket): Endpoint | undefined {
  if (socket.remoteAddress === undefined || socket.remotePort === undefined) return undefined;
  return { address: canonicalIp(socket.remoteAddress), port: socket.remotePort };
}

/** An error of the kernel as ztunnel's log has it: `Connection refused (os error 111)`. */
export function ioErrorText(error: unknown): string {
  const text = messageOf(error);
  if (!(error instanceof Error) || !("errno" in error) || typeof error.errno !== "number") return text;
  const [, reason] = /: ([^:]+) \([A-Z0-9]+\)$/.exec(text) ?? [];
  return `${reason ?? text} (os error ${-error.errno})`;
}
