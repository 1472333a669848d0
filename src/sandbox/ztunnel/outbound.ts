// SPDX-License-Identifier: Apache-2.0
// Port 15001: connections of the pod itself, redirected here (ztunnel's src/proxy/outbound.rs).
import { randomBytes } from "node:crypto";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import ipaddr from "ipaddr.js";
import { ZTUNNEL_PORT } from "../../core/constants.ts";
import { messageOf } from "../../core/errors.ts";
import type { Endpoint } from "../../native/binding.ts";
import { ConnectionRecord, identityOf, logEarlyDeny } from "./connection-record.ts";
import { formatEndpoint, type Route } from "./directory.ts";
import { HbonePool } from "./hbone-pool.ts";
import type { MeshService, MeshWorkload } from "./mesh.ts";
import { ioErrorText, peerOf } from "./pod-sockets.ts";
import { CUT, isIllegalPort, type ProxyContext, SELF_CALL } from "./proxy-context.ts";
import { relay } from "./relay.ts";

/** Where a connection goes and how, once its route is known. */
interface Plan {
  readonly destination: Endpoint;
  readonly workload: MeshWorkload | undefined;
  readonly service: MeshService | undefined;
  /** Undefined: the connection goes on as it is. */
  readonly tunnel: { readonly target: Endpoint; readonly from: string; readonly to: string } | undefined;
}

export class Outbound {
  readonly pool: HbonePool;

  constructor(private readonly context: ProxyContext) {
    this.pool = new HbonePool({
      dial: async (server) => context.tracker.own(await context.sockets.connectTunnel(server)),
      rootCertificate: context.local.rootCertificate,
      maxStreams: context.settings.poolStreams,
      idleMs: context.settings.poolIdleMs,
    });
  }

  /** Takes one accepted, paused socket. */
  accept(socket: Socket): void {
    const { tracker } = this.context;
    tracker.own(socket);
    tracker.run(this.serve(socket).finally(() => socket.destroy()));
  }

  private async serve(socket: Socket): Promise<void> {
    const { journal, local, sockets, tracker } = this.context;
    const client = peerOf(socket);
    if (client === undefined) return;
    const wanted = sockets.originalDestination(socket);
    const deny = (reason: string) => logEarlyDeny(journal, "outbound", client, wanted, reason);
    if (isLoopback(wanted.address) && isIllegalPort(wanted.port)) return deny(SELF_CALL);
    let source: MeshWorkload;
    let plan: Plan;
    try {
      source = await local.get();
      plan = planFor(source, local.meshFile.directory.route(source, wanted));
    } catch (error) {
      return deny(messageOf(error));
    }
    const { destination, workload, service, tunnel } = plan;
    const record = new ConnectionRecord(journal, {
      direction: "outbound",
      src: client,
      srcWorkload: source,
      srcIdentity: tunnel?.from,
      dst: destination,
      dstWorkload: workload,
      dstIdentity: tunnel?.to,
      hboneTarget: tunnel === undefined ? undefined : formatEndpoint(tunnel.target),
      service,
    });
    const unlist = tracker.list("outbound", {
      src: formatEndpoint(client),
      originalDst: formatEndpoint(wanted),
      actualDst: formatEndpoint(destination),
      protocol: tunnel === undefined ? "TCP" : "HBONE",
    });
    try {
      const upstream = await this.reach(plan, client, source);
      const failure = await relay(socket, tracker.own(upstream), record);
      record.complete(tracker.over ? CUT : failure);
    } catch (error) {
      record.complete(messageOf(error));
    } finally {
      unlist();
    }
  }

  private async reach(plan: Plan, client: Endpoint, source: MeshWorkload): Promise<Duplex> {
    const { tunnel, service, destination } = plan;
    if (tunnel === undefined) {
      return this.context.sockets.connect(destination).catch((error: unknown) => {
        throw new Error(`io error: ${ioErrorText(error)}`, { cause: error });
      });
    }
    const host = service === undefined ? "" : `;host=${service.hostname}`;
    return this.pool.open({
      source: this.context.local.certificate(source),
      peerIdentity: tunnel.to,
      client: client.address,
      server: destination,
      target: formatEndpoint(tunnel.target),
      headers: {
        baggage: baggage(source),
        forwarded: `for="${formatEndpoint(client)}"${host}`,
        traceparent: `00-${randomBytes(16).toString("hex")}-${randomBytes(8).toString("hex")}-00`,
      },
    });
  }
}

/** @throws Error when there is no way to the destination, or a workload has no identity to speak of. */
function planFor(source: MeshWorkload, route: Route): Plan {
  if (route.kind === "none") throw new Error(route.reason);
  if (route.kind === "passthrough") {
    return { destination: route.destination, workload: undefined, service: undefined, tunnel: undefined };
  }
  const { target, workload, service } = route;
  if (workload.protocol === "TCP") return { destination: target, workload, service, tunnel: undefined };
  const destination = { address: target.address, port: ZTUNNEL_PORT.inboundHbone };
  return { destination, workload, service, tunnel: { target, from: identityOf(source), to: identityOf(workload) } };
}

/** Who is calling, as a W3C baggage header with ztunnel's keys; parts that are unknown are left out. */
export function baggage(workload: MeshWorkload): string {
  const parts: readonly (readonly [string, string])[] = [
    ["k8s.cluster.name", workload.clusterId],
    ["k8s.namespace.name", workload.namespace],
    [`k8s.${workload.workloadType || "pod"}.name`, workload.workloadName],
    ["service.name", workload.canonicalName],
    ["service.version", workload.canonicalRevision],
  ];
  return parts
    .filter(([, value]) => value !== "")
    .map(([key, value]) => `${key}=${value}`)
    .join(",");
}

function isLoopback(address: string): boolean {
  return ipaddr.parse(address).range() === "loopback";
}
