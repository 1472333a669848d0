// SPDX-License-Identifier: Apache-2.0
// Connections that are older than their pod's capture: they go on, in the clear, until they close. Which ones
// they are is read from the kernel each time: a connection through ztunnel has ztunnel's end in the same netns.
import { MARK_MASK, ZTUNNEL_MARK, ZTUNNEL_PORT } from "../core/constants.ts";
import { canonicalIp, familyOf, inCidr } from "../core/ip.ts";
import type { CaptureSpec, ExistingConnections } from "../core/ports/dataplane.ts";
import type { NetnsHandle } from "../core/ports/netns.ts";
import type { NativeBinding, SocketInfo } from "../native/binding.ts";
import { isBehindEbpf } from "./proxied.ts";

/**
 * ESTABLISHED, FIN_WAIT1, FIN_WAIT2. Not CLOSE_WAIT: ztunnel's end of a connection that its peer has closed
 * is gone after a minute, the application's may stay for ever, and then looks as if it had never had one.
 */
const OPEN_STATES: readonly number[] = [1, 4, 5];
const LISTEN = 10;
/** Of ztunnel's ends every state counts that has a mark to tell them by: SYN_RECV, and all but TIME_WAIT and CLOSE. */
export const LISTED_STATES = [1, 2, 3, 4, 5, 8, 9, LISTEN, 11] as const;
/** Where ztunnel's end of a connection that netfilter turned is bound. */
const TURNED_PORTS: readonly number[] = [ZTUNNEL_PORT.outbound, ZTUNNEL_PORT.dns];

/** What the sockets alone don't say. */
export interface ExistingFacts {
  readonly spec: CaptureSpec;
  /** Addresses of the pod's interfaces, canonical. */
  readonly own: ReadonlySet<string>;
  /** Addresses of the node, canonical: what comes from them is a probe, and not captured. */
  readonly node: ReadonlySet<string>;
}

interface Ends {
  readonly socket: SocketInfo;
  readonly src: string;
  readonly dst: string;
}

/**
 * The application's ends of open connections that would go through ztunnel if they were made now, and don't.
 * Pure. A connection that is being made or closed may be taken for one: look twice before acting on it.
 */
export function existingAmong(sockets: readonly SocketInfo[], facts: ExistingFacts): SocketInfo[] {
  const all: Ends[] = sockets.map((socket) => ({
    socket,
    src: canonicalIp(socket.src),
    dst: canonicalIp(socket.dst),
  }));
  const listening = new Set(all.filter(({ socket }) => socket.state === LISTEN).map(({ socket }) => socket.srcPort));
  const turned = new Set<string>();
  const legs = new Set<string>();
  for (const { socket, src, dst } of all.filter(({ socket }) => socket.state !== LISTEN && isZtunnels(socket))) {
    // Seen from the application: its own end, and for a leg also whose it is.
    if (TURNED_PORTS.includes(socket.srcPort)) turned.add(`${dst} ${socket.dstPort}`);
    legs.add(`${dst} ${socket.dstPort} ${src} ${socket.srcPort}`);
  }
  return all
    .filter((ends) => isApplications(ends) && concerns(ends, facts))
    .filter(({ socket, src, dst }) => {
      if (listening.has(socket.srcPort)) {
        const leg = `${src} ${socket.srcPort} ${dst} ${socket.dstPort}`;
        return !facts.spec.bypassInbound && !facts.node.has(dst) && !legs.has(leg);
      }
      return !excluded(dst, facts.spec) && !turned.has(`${src} ${socket.srcPort}`);
    })
    .map(({ socket }) => socket);
}

/** Most pods have listeners only, and ztunnel's own sockets: then nobody's addresses matter. Pure. */
export function mayExist(sockets: readonly SocketInfo[]): boolean {
  return sockets.some((socket) => OPEN_STATES.includes(socket.state) && !isZtunnels(socket));
}

/** Counts them in a pod's netns, and resets them. */
export class PodExistingConnections implements ExistingConnections {
  constructor(
    private readonly binding: NativeBinding,
    /** The node's netns. */
    private readonly host: NetnsHandle,
  ) {}

  count(netns: NetnsHandle, spec: CaptureSpec): number {
    return this.#seenTwice(netns, spec).length;
  }

  reset(netns: NetnsHandle, spec: CaptureSpec): number {
    return this.#seenTwice(netns, spec).filter((socket) => this.binding.socketDestroy(netns.fd, socket)).length;
  }

  #seenTwice(netns: NetnsHandle, spec: CaptureSpec): SocketInfo[] {
    const first = this.#look(netns, spec);
    if (first.length === 0) return [];
    const cookies = new Set(first.map(({ cookie }) => cookie));
    return this.#look(netns, spec).filter(({ cookie }) => cookies.has(cookie));
  }

  #look(netns: NetnsHandle, spec: CaptureSpec): SocketInfo[] {
    const sockets = this.binding.sockets(netns.fd, { protocol: "tcp", states: LISTED_STATES });
    if (!mayExist(sockets)) return [];
    return existingAmong(sockets, { spec, own: this.#addresses(netns), node: this.#addresses(this.host) });
  }

  #addresses(netns: NetnsHandle): ReadonlySet<string> {
    return new Set(this.binding.addresses(netns.fd).map(({ address }) => canonicalIp(address)));
  }
}

function isZtunnels({ mark }: SocketInfo): boolean {
  return (mark & MARK_MASK) === ZTUNNEL_MARK;
}

/** A spread address is where the eBPF engine turned it. */
function isApplications({ socket, dst }: Ends): boolean {
  return OPEN_STATES.includes(socket.state) && !isZtunnels(socket) && !isBehindEbpf({ ...socket, src: dst });
}

function concerns({ src, dst }: Ends, { spec, own }: ExistingFacts): boolean {
  if (isLoopback(src) || isLoopback(dst) || own.has(dst)) return false;
  if (dst === canonicalIp(spec.probeIpv4) || dst === canonicalIp(spec.probeIpv6)) return false;
  return spec.ipv6 || familyOf(dst) === 4;
}

function isLoopback(ip: string): boolean {
  return ip === "::1" || ip.startsWith("127.");
}

function excluded(ip: string, { excludeOutboundCidrs }: CaptureSpec): boolean {
  return excludeOutboundCidrs.some((cidr) => inCidr(ip, cidr));
}
