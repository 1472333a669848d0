// SPDX-License-Identifier: Apache-2.0
import { ZTUNNEL_PORT } from "../../core/constants.ts";
import type { Journal } from "./journal.ts";
import type { LocalWorkload } from "./local-workload.ts";
import type { PodSockets } from "./pod-sockets.ts";
import type { Settings } from "./settings.ts";
import type { Tracker } from "./tracker.ts";

/** What the three proxy ports of one pod share. */
export interface ProxyContext {
  readonly settings: Settings;
  readonly journal: Journal;
  readonly sockets: PodSockets;
  readonly local: LocalWorkload;
  readonly tracker: Tracker;
}

/** What ztunnel says of connections that a drain ends. */
export const CUT = "connection closed due to connection drain";
export const SELF_CALL = "attempted recursive call to ourselves";

/** Ports on which a proxied connection would meet the proxy itself. */
export function isIllegalPort(port: number): boolean {
  return port === ZTUNNEL_PORT.outbound || port === ZTUNNEL_PORT.inboundPlaintext || port === ZTUNNEL_PORT.inboundHbone;
}
