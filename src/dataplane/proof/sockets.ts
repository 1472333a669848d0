// SPDX-License-Identifier: Apache-2.0
// Who holds the other end of a connection: the kernel's table of sockets tells, ztunnel need not.
import { MARK_MASK, ZTUNNEL_MARK } from "../../core/constants.ts";
import { canonicalIp } from "../../core/ip.ts";
import type { Endpoint, NativeBinding, SocketInfo } from "../../native/binding.ts";

/** All states in which a socket has a peer and can still be ended. */
const CONNECTED_STATES = [1, 2, 3, 4, 5, 8, 9, 11] as const;

/** Sockets of one netns, during one proof. */
export class ProofSockets {
  constructor(
    private readonly binding: NativeBinding,
    private readonly netns: number,
  ) {}

  /** The end whose peer is `endpoint`: whoever answered it. */
  answering(endpoint: Endpoint): SocketInfo | undefined {
    return this.#all().find((socket) => isPeer(socket, endpoint));
  }

  /** ztunnel's call to an endpoint. */
  calling(to: Endpoint): SocketInfo | undefined {
    return this.#all().find((socket) => isPeer(socket, to) && isZtunnels(socket));
  }

  /** Every connected socket of ztunnel's. */
  ztunnels(): SocketInfo[] {
    return this.#all().filter(isZtunnels);
  }

  /** The socket whose own end is `endpoint`. */
  at({ address, port }: Endpoint): SocketInfo | undefined {
    const ip = canonicalIp(address);
    return this.#all().find((socket) => socket.srcPort === port && canonicalIp(socket.src) === ip);
  }

  /** Ends everybody's calls to an endpoint: only a proof has any. */
  endCalls(to: Endpoint): void {
    for (const socket of this.#all()) if (isPeer(socket, to)) this.end(socket);
  }

  end(socket: SocketInfo): void {
    this.binding.socketDestroy(this.netns, socket);
  }

  /** Looks until `found` finds something or the time (ms) is over: others act in their own time. */
  async await<T>(found: () => T | undefined, timeoutMs: number): Promise<T | undefined> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const value = found();
      if (value !== undefined || performance.now() > deadline) return value;
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  }

  #all(): SocketInfo[] {
    return this.binding.sockets(this.netns, { protocol: "tcp", states: CONNECTED_STATES });
  }
}

function isPeer(socket: SocketInfo, { address, port }: Endpoint): boolean {
  return socket.dstPort === port && canonicalIp(socket.dst) === canonicalIp(address);
}

export function isZtunnels({ mark }: SocketInfo): boolean {
  return (mark & MARK_MASK) === ZTUNNEL_MARK;
}

/** For people: whose end it is, when it is not ztunnel's. */
export function holderText({ uid, src, srcPort }: SocketInfo): string {
  return `a listener of the pod's own at ${endpointText({ address: src, port: srcPort })} (uid ${uid})`;
}

/** "10.0.0.2:15001", "[fd00::2]:15001" */
export function endpointText({ address, port }: Endpoint): string {
  const ip = canonicalIp(address);
  return ip.includes(":") ? `[${ip}]:${port}` : `${ip}:${port}`;
}
