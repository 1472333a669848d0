// SPDX-License-Identifier: Apache-2.0
// Which engine an open connection through ztunnel lives by: the local address of ztunnel's end tells.
import { ZTUNNEL_MARK, ZTUNNEL_PORT } from "../core/constants.ts";
import type { NativeBinding, SocketInfo } from "../native/binding.ts";

/** TCP states in which bytes may still flow: ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT. */
const OPEN_STATES = [1, 4, 5, 8] as const;
const PROXY_PORTS: readonly number[] = [
  ZTUNNEL_PORT.outbound,
  ZTUNNEL_PORT.inboundPlaintext,
  ZTUNNEL_PORT.inboundHbone,
];

/** SYN_RECV, and what waits to be accepted. */
const PENDING_STATES = [3, ...OPEN_STATES] as const;
/** Without an inode these wait to be accepted: a socket that its owner has closed is in another state. */
const WAITING_STATES: readonly number[] = [1, 3, 8];

/** As `proxiedSockets`, with what the kernel only ends, of nobody's any more: steering must outlive that too. */
export function steeredSockets(binding: NativeBinding, netns: number): SocketInfo[] {
  return binding
    .sockets(netns, { protocol: "tcp", states: PENDING_STATES })
    .filter((socket) => socket.mark === ZTUNNEL_MARK && isProxied(socket));
}

/** ztunnel's ends of the open connections that it accepted in this netns, or is about to. */
export function proxiedSockets(binding: NativeBinding, netns: number): SocketInfo[] {
  return steeredSockets(binding, netns).filter(({ inode, state }) => inode !== 0 || WAITING_STATES.includes(state));
}

/** True when the local address is a shadow or spread address of the eBPF engine. */
export function isBehindEbpf({ src }: SocketInfo): boolean {
  const address = src.replace(/^::ffff:(?=\d+\.)/, "");
  return ["255.", "fd16:9254:7127:1:", "fd16:9254:7127:2:"].some((prefix) => address.startsWith(prefix));
}

/** Redirected by netfilter: to ztunnel's own ports, at an address that is the pod's. */
export function isBehindNetfilter(socket: SocketInfo): boolean {
  return !isBehindEbpf(socket) && socket.srcPort !== ZTUNNEL_PORT.inboundHbone;
}

/** An eBPF-captured inbound connection keeps the port that its client asked for. */
function isProxied(socket: SocketInfo): boolean {
  return PROXY_PORTS.includes(socket.srcPort) || isBehindEbpf(socket);
}
