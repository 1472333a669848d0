// SPDX-License-Identifier: Apache-2.0
// Connections that are older than their pod's capture: they go on, in the clear, until they close. Which ones
// they are is read from the kernel each time: a connection through ztunnel has ztunnel's end in the same netns.
import { ZTUNNEL_PORT } from "../core/constants.ts";
import { codeOf } from "../core/errors.ts";
import { canonicalIp, familyOf, inCidr } from "../core/ip.ts";
import type { CaptureSpec, ExistingConnections } from "../core/ports/dataplane.ts";
import type { NetnsHandle } from "../core/ports/netns.ts";
import type { NativeBinding, SocketInfo } from "../native/binding.ts";
import {
  clientPorts,
  type Ends,
  endsOf,
  hasZtunnelsEnd,
  isLoopback,
  isZtunnels,
  LISTEN,
  otherEnd,
  ownEnd,
  wasAccepted,
} from "./ends.ts";
import { isBehindEbpf } from "./proxied.ts";
import { reservePorts } from "./reserved-ports.ts";

/**
 * ESTABLISHED, FIN_WAIT1, FIN_WAIT2. Not CLOSE_WAIT: ztunnel's end of a connection that its peer has closed
 * is gone after a minute, the application's may stay for ever, and then looks as if it had never had one.
 */
const OPEN_STATES: readonly number[] = [1, 4, 5];
/** Of ztunnel's ends every state counts that has a mark to tell them by: SYN_RECV, and all but TIME_WAIT and CLOSE. */
export const LISTED_STATES = [1, 2, 3, 4, 5, 8, 9, LISTEN, 11] as const;
/** Where ztunnel's end of a connection that netfilter turned is bound. */
const TURNED_PORTS: readonly number[] = [ZTUNNEL_PORT.outbound, ZTUNNEL_PORT.dns];

/** What the sockets alone don't say. */
export interface ExistingFacts {
  readonly spec: CaptureSpec;
  /** Addresses of the pod's interfaces, canonical. */
  readonly own: ReadonlySet<string>;
  /** Addresses of the node, canonical: what comes from them may be a probe, which is not captured. */
  readonly node: ReadonlySet<string>;
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
  const all = endsOf(sockets);
  const [accepted, proxied] = [wasAccepted(all), hasZtunnelsEnd(all)];
  const open = all.filter((ends) => isApplications(ends) && concerns(ends, facts));
  const inbound = open.filter(
    (ends) => accepted(ends) && !facts.spec.bypassInbound && !facts.node.has(ends.dst) && !proxied(ends),
  );
  const outbound = open.filter((ends) => !accepted(ends) && !excluded(ends.dst, facts.spec));
  const { certain, doubtful } = outboundAmong(outbound, all);
  return { inbound: inbound.map(socketOf), outbound: certain.map(socketOf), doubtful: doubtful.map(socketOf) };
}

function outboundAmong(outbound: readonly Ends[], all: readonly Ends[]): { certain: Ends[]; doubtful: Ends[] } {
  // Ends that ztunnel has of connections that netfilter turned. Those of the eBPF engine have the other one by the same
  // addresses, from a port that may lead elsewhere as well.
  const turned = new Set(
    all
      .filter(({ socket }) => isZtunnels(socket) && socket.state !== LISTEN && TURNED_PORTS.includes(socket.srcPort))
      .filter(({ socket }) => !isBehindEbpf(socket))
      .map(otherEnd),
  );
  const applications = new Map<string, number>();
  for (const ends of all) {
    if (!isZtunnels(ends.socket)) applications.set(ownEnd(ends), (applications.get(ownEnd(ends)) ?? 0) + 1);
  }
  const unmatched = [...turned].some((end) => !applications.has(end));
  const certain: Ends[] = [];
  const doubtful: Ends[] = [];
  for (const ends of outbound) {
    const end = ownEnd(ends);
    if (!turned.has(end)) (unmatched ? doubtful : certain).push(ends);
    else if ((applications.get(end) ?? 0) > 1) doubtful.push(ends);
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
    return this.#seenTwice(netns, spec).length;
  }

  reset(netns: NetnsHandle, spec: CaptureSpec): number {
    return this.#seenTwice(netns, spec).filter((socket) => this.binding.socketDestroy(netns.fd, socket)).length;
  }

  protect(netns: NetnsHandle): void {
    const sockets = this.#sockets(netns);
    const accepted = sockets.some((socket) => socket.state !== LISTEN && !isZtunnels(socket));
    reservePorts(this.binding, netns.fd, accepted ? clientPorts(sockets, this.#addresses(netns)) : []);
  }

  #seenTwice(netns: NetnsHandle, spec: CaptureSpec): SocketInfo[] {
    const first = this.#look(netns, spec);
    if (first.length === 0) return [];
    const cookies = new Set(first.map(({ cookie }) => cookie));
    return this.#look(netns, spec).filter(({ cookie }) => cookies.has(cookie));
  }

  #look(netns: NetnsHandle, spec: CaptureSpec): SocketInfo[] {
    const sockets = this.#sockets(netns);
    if (!mayExist(sockets)) return [];
    const facts = { spec, own: this.#addresses(netns), node: this.#addresses(this.host) };
    const { inbound, outbound, doubtful } = existingAmong(sockets, facts);
    return [...inbound, ...outbound, ...this.#untranslated(netns, doubtful)];
  }

  #sockets(netns: NetnsHandle): readonly SocketInfo[] {
    return this.binding.sockets(netns.fd, { protocol: "tcp", states: LISTED_STATES });
  }

  #untranslated(netns: NetnsHandle, doubtful: readonly SocketInfo[]): SocketInfo[] {
    if (doubtful.length === 0) return [];
    const tuples = endsOf(doubtful).map(({ socket: { srcPort, dstPort }, src, dst }) => ({
      src,
      srcPort,
      dst,
      dstPort,
    }));
    try {
      const replies = this.binding.conntrackReplies(netns.fd, tuples);
      return doubtful.filter((socket, index) => {
        const reply = replies[index];
        return reply === undefined || (reply.port === socket.dstPort && reply.address === tuples[index]?.dst);
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

/** A spread address is where the eBPF engine turned it. */
function isApplications({ socket, dst }: Ends): boolean {
  return OPEN_STATES.includes(socket.state) && !isZtunnels(socket) && !isBehindEbpf({ ...socket, src: dst });
}

function concerns({ src, dst }: Ends, { spec, own }: ExistingFacts): boolean {
  if (isLoopback(src) || isLoopback(dst) || own.has(dst)) return false;
  if (dst === canonicalIp(spec.probeIpv4) || dst === canonicalIp(spec.probeIpv6)) return false;
  return spec.ipv6 || familyOf(dst) === 4;
}

function socketOf({ socket }: Ends): SocketInfo {
  return socket;
}

function excluded(ip: string, { excludeOutboundCidrs }: CaptureSpec): boolean {
  return excludeOutboundCidrs.some((cidr) => inCidr(ip, cidr));
}
