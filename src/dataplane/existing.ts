// SPDX-License-Identifier: Apache-2.0
// Connections that are older than their pod's capture: they go on, in the clear, until they close. Which ones
// they are is read from the kernel each time: a connection through ztunnel has ztunnel's end in the same netns.
import { MARK_MASK, ZTUNNEL_MARK, ZTUNNEL_PORT } from "../core/constants.ts";
import { codeOf } from "../core/errors.ts";
import { canonicalIp, familyOf, inCidr } from "../core/ip.ts";
import type { CaptureSpec, ExistingConnections } from "../core/ports/dataplane.ts";
import type { NetnsHandle } from "../core/ports/netns.ts";
import type { NativeBinding, SocketInfo } from "../native/binding.ts";
import { isBehindEbpf } from "./proxied.ts";
import { reservePorts } from "./reserved-ports.ts";

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

type Found = Pick<Existing, "inbound" | "outbound">;

interface Ends {
  readonly socket: SocketInfo;
  readonly src: string;
  readonly dst: string;
}

/** The application's ends of open connections that would go through ztunnel if they were made now, and don't. */
export interface Existing {
  readonly inbound: readonly SocketInfo[];
  readonly outbound: readonly SocketInfo[];
  /**
   * Outbound. Some of these do, turned by netfilter: from one source port to several destinations, of which conntrack gave
   * all but one another port towards ztunnel. Only conntrack knows which.
   */
  readonly doubtful: readonly SocketInfo[];
}

/** Pure. A connection that is being made or closed may be taken for one: look twice before acting on it. */
export function existingAmong(sockets: readonly SocketInfo[], facts: ExistingFacts): Existing {
  const all: Ends[] = sockets.map((socket) => ({
    socket,
    src: canonicalIp(socket.src),
    dst: canonicalIp(socket.dst),
  }));
  const listening = new Set(all.filter(({ socket }) => socket.state === LISTEN).map(({ socket }) => socket.srcPort));
  const accepts = ({ socket }: Ends) => listening.has(socket.srcPort);
  // Seen from the application: its own end, and for a leg also whose it is.
  const turned = new Set<string>();
  const legs = new Set<string>();
  for (const { socket, src, dst } of all.filter(({ socket }) => socket.state !== LISTEN && isZtunnels(socket))) {
    // The eBPF engine's have the other end by the same addresses, from a port that may lead elsewhere as well.
    if (TURNED_PORTS.includes(socket.srcPort) && !isBehindEbpf(socket)) turned.add(`${dst} ${socket.dstPort}`);
    legs.add(`${dst} ${socket.dstPort} ${src} ${socket.srcPort}`);
  }
  const open = all.filter((ends) => isApplications(ends) && concerns(ends, facts));
  const inbound = open.filter((ends) => {
    if (!accepts(ends) || facts.spec.bypassInbound || facts.node.has(ends.dst)) return false;
    return !legs.has(`${ownEnd(ends)} ${ends.dst} ${ends.socket.dstPort}`);
  });
  const outbound = open.filter((ends) => !accepts(ends) && !excluded(ends.dst, facts.spec));
  const { certain, doubtful } = outboundAmong(outbound, turned);
  return { inbound: inbound.map(socketOf), outbound: certain.map(socketOf), doubtful: doubtful.map(socketOf) };
}

/** `turned`: the ends of outbound connections that ztunnel has, by netfilter. */
function outboundAmong(outbound: readonly Ends[], turned: ReadonlySet<string>): { certain: Ends[]; doubtful: Ends[] } {
  const byEnd = new Map<string, Ends[]>();
  for (const ends of outbound) byEnd.set(ownEnd(ends), [...(byEnd.get(ownEnd(ends)) ?? []), ends]);
  const unmatched = [...turned].some((end) => !byEnd.has(end));
  const certain: Ends[] = [];
  const doubtful: Ends[] = [];
  for (const [end, all] of byEnd) {
    if (turned.has(end)) doubtful.push(...(all.length > 1 ? all : []));
    else (unmatched ? doubtful : certain).push(...all);
  }
  return { certain, doubtful };
}

/** Most pods have listeners only, and ztunnel's own sockets: then nobody's addresses matter. Pure. */
export function mayExist(sockets: readonly SocketInfo[]): boolean {
  return sockets.some((socket) => OPEN_STATES.includes(socket.state) && !isZtunnels(socket));
}

/**
 * Counts them in a pod's netns, and resets them. On a kernel that tells nothing of its conntrack table what is
 * doubtful goes through ztunnel: no such connection is ever reset.
 */
export class PodExistingConnections implements ExistingConnections {
  constructor(
    private readonly binding: NativeBinding,
    /** The node's netns. */
    private readonly host: NetnsHandle,
  ) {}

  count(netns: NetnsHandle, spec: CaptureSpec): number {
    return this.#all(netns, spec).length;
  }

  reset(netns: NetnsHandle, spec: CaptureSpec): number {
    return this.#all(netns, spec).filter((socket) => this.binding.socketDestroy(netns.fd, socket)).length;
  }

  protect(netns: NetnsHandle, spec: CaptureSpec): number {
    const { inbound, outbound } = this.#seenTwice(netns, spec);
    reservePorts(
      this.binding,
      netns.fd,
      inbound.map(({ dstPort }) => dstPort),
    );
    return inbound.length + outbound.length;
  }

  #all(netns: NetnsHandle, spec: CaptureSpec): readonly SocketInfo[] {
    const { inbound, outbound } = this.#seenTwice(netns, spec);
    return [...inbound, ...outbound];
  }

  #seenTwice(netns: NetnsHandle, spec: CaptureSpec): Found {
    const first = this.#look(netns, spec);
    if (first.inbound.length + first.outbound.length === 0) return first;
    const cookies = new Set([...first.inbound, ...first.outbound].map(({ cookie }) => cookie));
    const { inbound, outbound } = this.#look(netns, spec);
    const seen = ({ cookie }: SocketInfo) => cookies.has(cookie);
    return { inbound: inbound.filter(seen), outbound: outbound.filter(seen) };
  }

  #look(netns: NetnsHandle, spec: CaptureSpec): Found {
    const sockets = this.binding.sockets(netns.fd, { protocol: "tcp", states: LISTED_STATES });
    if (!mayExist(sockets)) return { inbound: [], outbound: [] };
    const facts = { spec, own: this.#addresses(netns), node: this.#addresses(this.host) };
    const { inbound, outbound, doubtful } = existingAmong(sockets, facts);
    return { inbound, outbound: [...outbound, ...this.#untranslated(netns, doubtful)] };
  }

  #untranslated(netns: NetnsHandle, doubtful: readonly SocketInfo[]): SocketInfo[] {
    try {
      return doubtful.filter((socket) => {
        const [src, dst] = [canonicalIp(socket.src), canonicalIp(socket.dst)];
        const reply = this.binding.conntrackReply(netns.fd, { ...socket, src, dst });
        return reply === undefined || (canonicalIp(reply.address) === dst && reply.port === socket.dstPort);
      });
    } catch (error) {
      if (codeOf(error) === "EINVAL") return [];
      throw error;
    }
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

/** As `turned` and `legs` name it. */
function ownEnd({ socket, src }: Ends): string {
  return `${src} ${socket.srcPort}`;
}

function socketOf({ socket }: Ends): SocketInfo {
  return socket;
}

function isLoopback(ip: string): boolean {
  return ip === "::1" || ip.startsWith("127.");
}

function excluded(ip: string, { excludeOutboundCidrs }: CaptureSpec): boolean {
  return excludeOutboundCidrs.some((cidr) => inCidr(ip, cidr));
}
