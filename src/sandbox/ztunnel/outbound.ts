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
import type { MeshWorkload } from "./mesh.ts";
import { ioErrorText, peerOf } from "./pod-sockets.ts";
import { isIllegalPort, type ProxyContext, SELF_CALL } from "./proxy-context.ts";
import { relay } from "./relay.ts";

/** Where a connection goes and how, once its route is known. */
interface Plan {
  readonly destination: Endpoint;
  readonly target: Endpoint | undefined;
  readonly route: Exclude<Route, { kind: "none" }>;
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
      plan = planFor(local.meshFile.directory.route(source, wanted));
    } catch (error) {
      return deny(messageOf(error));
    }
    const { destination, target, route } = plan;
    const workload = route.kind === "workload" ? route.workload : undefined;
    const hboneTarget = target === undefined ? undefined : formatEndpoint(target);
    const record = new ConnectionRecord(journal, {
      direction: "outbound",
      src: client,
      srcWorkload: source,
      srcIdentity: target === undefined ? undefined : identityOf(source),
      dst: destination,
      dstWorkload: workload,
      dstIdentity: target === undefined || workload === undefined ? undefined : identityOf(workload),
      hboneTarget,
      service: route.kind === "workload" ? route.service : undefined,
    });
    const unlist = tracker.list("outbound", {
      src: formatEndpoint(client),
      originalDst: formatEndpoint(wanted),
      actualDst: formatEndpoint(destination),
      protocol: target === undefined ? "TCP" : "HBONE",
    });
    try {
      const upstream = await this.reach(plan, client, source);
      const failure = await relay(socket, tracker.own(upstream), record);
      record.complete(tracker.over ? "connection closed due to connection drain" : failure);
    } catch (error) {
      record.complete(messageOf(error));
    } finally {
      unlist();
    }
  }

  private async reach(plan: Plan, client: Endpoint, source: MeshWorkload): Promise<Duplex> {
    const { route, target, destination } = plan;
    if (target === undefined || route.kind !== "workload") {
      return this.context.sockets.connect(destination).catch((error: unknown) => {
        throw new Error(`io error: ${ioErrorText(error)}`, { cause: error });
      });
    }
    const host = route.service === undefined ? "" : `;host=${route.service.hostname}`;
    return this.pool.open({
      source: this.context.local.certificate(source),
      peerIdentity: identityOf(route.workload),
      client: client.address,
      server: destination,
      target: formatEndpoint(target),
      headers: {
        baggage: baggage(source),
        forwarded: `for="${formatEndpoint(client)}"${host}`,
        traceparent: `00-${randomBytes(16).toString("hex")}-${randomBytes(8).toString("hex")}-00`,
      },
    });
  }
}

/** @throws Error when there is no way to the destination. */
function planFor(route: Route): Plan {
  if (route.kind === "none") throw new Error(route.reason);
  if (route.kind === "passthrough") return { route, destination: route.destination, target: undefined };
  const { target, workload } = route;
  if (workload.protocol === "TCP") return { route, destination: target, target: undefined };
  return { route, destination: { address: target.address, port: ZTUNNEL_PORT.inboundHbone }, target };
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
