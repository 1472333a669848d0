// SPDX-License-Identifier: Apache-2.0
import type { Endpoint } from "../../native/binding.ts";
import { spiffeId } from "../identity/spiffe.ts";
import { formatEndpoint } from "./directory.ts";
import { type Journal, quoted } from "./journal.ts";
import type { MeshService, MeshWorkload } from "./mesh.ts";

export type Direction = "inbound" | "outbound";

export interface ConnectionFacts {
  readonly direction: Direction;
  readonly src: Endpoint;
  readonly srcWorkload: MeshWorkload | undefined;
  /** Set when mutual TLS proves it, like the next one. */
  readonly srcIdentity: string | undefined;
  readonly dst: Endpoint;
  readonly dstWorkload: MeshWorkload | undefined;
  readonly dstIdentity: string | undefined;
  /** What the CONNECT asks for. */
  readonly hboneTarget: string | undefined;
  readonly service: MeshService | undefined;
}

/** One proxied connection in the access log: opened once, completed once. */
export class ConnectionRecord {
  private readonly started = performance.now();
  private sent = 0;
  private received = 0;
  private recorded = false;

  constructor(
    private readonly journal: Journal,
    readonly facts: ConnectionFacts,
  ) {
    journal.event({ event: "connection opened", ...this.data() });
  }

  /** Bytes from client to server. */
  addSent(bytes: number): void {
    this.sent += bytes;
  }

  /** Bytes from server to client. */
  addReceived(bytes: number): void {
    this.received += bytes;
  }

  /** Writes the access log line; later calls do nothing. */
  complete(error?: string): void {
    if (this.recorded) return;
    this.recorded = true;
    const { facts } = this;
    // ztunnel counts from the reporter's side: the destination reports what it sent to the client.
    const outbound = facts.direction === "outbound";
    const bytesSent = outbound ? this.sent : this.received;
    const bytesReceived = outbound ? this.received : this.sent;
    const milliseconds = Math.floor(performance.now() - this.started);
    this.journal.log(error === undefined ? "info" : "error", "access", "connection complete", {
      "src.addr": formatEndpoint(facts.src),
      "src.workload": quoted(facts.srcWorkload?.name),
      "src.namespace": quoted(facts.srcWorkload?.namespace),
      "src.identity": quoted(facts.srcIdentity),
      "dst.addr": formatEndpoint(facts.dst),
      "dst.hbone_addr": facts.hboneTarget,
      "dst.service": quoted(facts.service?.hostname),
      "dst.workload": quoted(facts.dstWorkload?.name),
      "dst.namespace": quoted(facts.dstWorkload?.namespace),
      "dst.identity": quoted(facts.dstIdentity),
      direction: quoted(facts.direction),
      bytes_sent: bytesSent,
      bytes_recv: bytesReceived,
      duration: quoted(`${milliseconds}ms`),
      error: quoted(error),
    });
    this.journal.event({
      event: "connection complete",
      ...this.data(),
      bytesSent,
      bytesReceived,
      milliseconds,
      ...(error === undefined ? {} : { error }),
    });
  }

  private data(): Record<string, unknown> {
    const { facts } = this;
    return {
      direction: facts.direction,
      src: formatEndpoint(facts.src),
      srcWorkload: facts.srcWorkload?.name,
      srcIdentity: facts.srcIdentity,
      dst: formatEndpoint(facts.dst),
      dstWorkload: facts.dstWorkload?.name,
      dstIdentity: facts.dstIdentity,
      hboneTarget: facts.hboneTarget,
      service: facts.service?.hostname,
    };
  }
}

/** A connection refused before enough was known about it for a record. */
export function logEarlyDeny(
  journal: Journal,
  direction: Direction,
  src: Endpoint,
  dst: Endpoint,
  error: string,
): void {
  journal.log("warn", "access", "connection failed", {
    "src.addr": formatEndpoint(src),
    "dst.addr": formatEndpoint(dst),
    direction: quoted(direction),
    error: quoted(error),
  });
  journal.event({
    event: "connection failed",
    direction,
    src: formatEndpoint(src),
    dst: formatEndpoint(dst),
    error,
  });
}

/** SPIFFE id of a workload. @throws Error when its names can't form one (an empty trust domain, say). */
export function identityOf(workload: MeshWorkload): string {
  return spiffeId(workload);
}
