// SPDX-License-Identifier: Apache-2.0
import { ZTUNNEL_MARK, ZTUNNEL_PORT } from "../core/constants.ts";
import type { Unaccepted } from "../core/ports/dataplane.ts";
import type { NativeBinding } from "../native/binding.ts";

const LISTEN = 10;
const PORTS: readonly number[] = [
  ZTUNNEL_PORT.outbound,
  ZTUNNEL_PORT.inboundPlaintext,
  ZTUNNEL_PORT.inboundHbone,
  ZTUNNEL_PORT.dns,
];

/**
 * The accept queue of a listener (sk_ack_backlog, which sock_diag calls its receive queue). Only accept() makes it
 * shorter: also a connection that its client has given up stays in it.
 */
export function unacceptedAt(binding: NativeBinding, netns: number): readonly Unaccepted[] {
  return binding
    .sockets(netns, { protocol: "tcp", states: [LISTEN] })
    .filter(({ mark, srcPort, queued }) => queued > 0 && mark === ZTUNNEL_MARK && PORTS.includes(srcPort))
    .map(({ cookie, srcPort, queued }) => ({ listener: cookie, port: srcPort, connections: queued }));
}
