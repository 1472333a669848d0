// SPDX-License-Identifier: Apache-2.0
// ztunnel's legs to applications that wear their clients' addresses: which of them don't live by our mark.
import { LOCAL_MARK, MARK_MASK, ZTUNNEL_MARK } from "../core/constants.ts";
import { canonicalIp } from "../core/ip.ts";
import type { NativeBinding } from "../native/binding.ts";
import { isBehindEbpf } from "./proxied.ts";

/** All states in which a socket has a mark and something to send: SYN_RECV, and all but TIME_WAIT, CLOSE, LISTEN. */
const OPEN_STATES = [1, 2, 3, 4, 5, 8, 9, 11] as const;

/** Open legs whose application's end lacks our mark: only what conntrack remembers brings its replies back. */
export interface UnmarkedLegs {
  /** Accepted before our rules or programs were there. */
  readonly older: number;
  /** Of listeners with an SO_MARK of their own. */
  readonly marked: number;
}

/** Reads the kernel, no fork. */
export function unmarkedLegs(binding: NativeBinding, netns: number): UnmarkedLegs {
  const open = binding.sockets(netns, { protocol: "tcp", states: OPEN_STATES });
  if (!open.some(({ mark }) => (mark & MARK_MASK) === ZTUNNEL_MARK)) return { older: 0, marked: 0 };
  const sockets = open.map((socket) => ({
    ...socket,
    src: canonicalIp(socket.src),
    dst: canonicalIp(socket.dst),
    mark: socket.mark & MARK_MASK,
  }));
  const own = new Set(binding.addresses(netns).map(({ address }) => canonicalIp(address)));
  const marks = new Map(
    sockets.map(({ src, srcPort, dst, dstPort, mark }) => [`${src} ${srcPort} ${dst} ${dstPort}`, mark]),
  );
  const ends = sockets
    .filter((socket) => socket.mark === ZTUNNEL_MARK && !own.has(socket.src) && !isBehindEbpf(socket))
    .map(({ src, srcPort, dst, dstPort }) => marks.get(`${dst} ${dstPort} ${src} ${srcPort}`))
    .filter((mark) => mark !== undefined && mark !== LOCAL_MARK);
  // With tcp_fwmark_accept, and nothing of ours yet to change the mark, ztunnel's own was inherited.
  const older = ends.filter((mark) => mark === 0 || mark === ZTUNNEL_MARK).length;
  return { older, marked: ends.length - older };
}
