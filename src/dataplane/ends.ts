// SPDX-License-Identifier: Apache-2.0
// A pod's TCP sockets as ends of connections: which are ztunnel's, and which of the application's belong to them.
import { MARK_MASK, ZTUNNEL_MARK } from "../core/constants.ts";
import { canonicalIp } from "../core/ip.ts";
import type { SocketInfo } from "../native/binding.ts";

/** TCP_SYN_SENT, TCP_LISTEN */
const SYN_SENT = 2;
export const LISTEN = 10;

export interface Ends {
  readonly socket: SocketInfo;
  /** Canonical, as `dst`. */
  readonly src: string;
  readonly dst: string;
}

export function endsOf(sockets: readonly SocketInfo[]): Ends[] {
  return sockets.map((socket) => ({ socket, src: canonicalIp(socket.src), dst: canonicalIp(socket.dst) }));
}

export function isZtunnels({ mark }: SocketInfo): boolean {
  return (mark & MARK_MASK) === ZTUNNEL_MARK;
}

/** Its own address and port as one word. */
export function ownEnd({ socket, src }: Ends): string {
  return `${src} ${socket.srcPort}`;
}

/** Its peer's. */
export function otherEnd({ socket, dst }: Ends): string {
  return `${dst} ${socket.dstPort}`;
}

/** Whether an end is of a connection that ztunnel has the other end of, in the same netns. */
export function hasZtunnelsEnd(all: readonly Ends[]): (ends: Ends) => boolean {
  const legs = new Set(
    all
      .filter(({ socket }) => socket.state !== LISTEN && isZtunnels(socket))
      .map((ends) => `${otherEnd(ends)} ${ownEnd(ends)}`),
  );
  return (ends) => legs.has(`${ownEnd(ends)} ${otherEnd(ends)}`);
}

/** Whether an end was accepted: a listener has its port. */
export function wasAccepted(all: readonly Ends[]): (ends: Ends) => boolean {
  const listening = new Set(all.filter(({ socket }) => socket.state === LISTEN).map(({ socket }) => socket.srcPort));
  return ({ socket }) => socket.state !== LISTEN && listening.has(socket.srcPort);
}

export function isLoopback(ip: string): boolean {
  return ip === "::1" || ip.startsWith("127.");
}

/**
 * Ports of the clients that the pod's applications are connected with, in whatever state, past ztunnel: those that no
 * call of ztunnel's may have. Pure. `own`: addresses of the pod's interfaces, canonical.
 */
export function clientPorts(sockets: readonly SocketInfo[], own: ReadonlySet<string>): number[] {
  const all = endsOf(sockets);
  const [accepted, proxied] = [wasAccepted(all), hasZtunnelsEnd(all)];
  return all
    .filter(({ socket, dst }) => socket.state !== SYN_SENT && !isZtunnels(socket) && !isLoopback(dst) && !own.has(dst))
    .filter((ends) => accepted(ends) && !proxied(ends))
    .map(({ socket }) => socket.dstPort);
}
