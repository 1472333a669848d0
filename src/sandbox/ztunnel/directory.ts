// SPDX-License-Identifier: Apache-2.0
import { familyOf } from "../../core/ip.ts";
import type { Endpoint } from "../../native/binding.ts";
import type { Mesh, MeshService, MeshWorkload } from "./mesh.ts";

/** Name of a workload as the agent gave it (ZDS WorkloadInfo). */
export interface LocalName {
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
}

/** Where an outbound connection goes. */
export type Route =
  | { readonly kind: "passthrough"; readonly destination: Endpoint }
  | {
      readonly kind: "workload";
      readonly workload: MeshWorkload;
      /** Of the workload, not of the service. */
      readonly target: Endpoint;
      readonly service: MeshService | undefined;
    }
  | { readonly kind: "none"; readonly reason: string };

/** Look-ups in one state of the mesh, with ztunnel's rules of preference (its src/state.rs). */
export class Directory {
  private readonly byIp = new Map<string, MeshWorkload>();
  private readonly byVip = new Map<string, MeshService[]>();
  private readonly byHost = new Map<string, MeshService[]>();

  constructor(
    private readonly mesh: Mesh,
    readonly network: string,
    private readonly node: string | undefined,
    private readonly random: () => number = Math.random,
  ) {
    for (const workload of mesh.workloads) {
      for (const ip of workload.ips) this.byIp.set(key(workload.network, ip), workload);
    }
    for (const service of mesh.services) {
      for (const vip of service.vips) append(this.byVip, key(vip.network, vip.address), service);
      append(this.byHost, service.hostname.toLowerCase(), service);
    }
  }

  /** The workload of this node with this name; without NODE_NAME every workload counts as local. */
  local(wanted: LocalName): MeshWorkload | undefined {
    return this.mesh.workloads.find(
      (each) =>
        each.name === wanted.name &&
        each.namespace === wanted.namespace &&
        each.serviceAccount === wanted.serviceAccount &&
        (this.node === undefined || each.node === this.node),
    );
  }

  workloadAt(ip: string): MeshWorkload | undefined {
    return this.byIp.get(key(this.network, ip));
  }

  /** Services with this host name; the name is compared without case. */
  servicesNamed(hostname: string): readonly MeshService[] {
    return this.byHost.get(hostname.toLowerCase()) ?? [];
  }

  /** Services this workload is an endpoint of. */
  servicesOf(workload: MeshWorkload): MeshService[] {
    return this.mesh.services.filter((service) => service.endpoints.some((each) => each.workload === workload));
  }

  /** A service VIP goes to one of its endpoints, a workload's address to itself, anything else straight on. */
  route(source: MeshWorkload, destination: Endpoint): Route {
    const service = best(this.byVip.get(key(this.network, destination.address)) ?? [], source.namespace);
    if (service !== undefined) return this.toService(service, destination);
    const workload = this.workloadAt(destination.address);
    if (workload === undefined) return { kind: "passthrough", destination };
    return { kind: "workload", workload, target: destination, service: undefined };
  }

  private toService(service: MeshService, destination: Endpoint): Route {
    const none: Route = {
      kind: "none",
      reason: `no healthy upstream: ${formatEndpoint(destination)}`,
    };
    const declared = service.ports.get(destination.port);
    if (declared === undefined) return none;
    const usable = service.endpoints.flatMap(({ workload, ports }) => {
      const port = ports.get(destination.port) ?? declared;
      const address = preferFamily(workload.ips, destination.address);
      return port === 0 || address === undefined ? [] : [{ workload, target: { address, port } }];
    });
    const chosen = usable[Math.floor(this.random() * usable.length)];
    return chosen === undefined ? none : { kind: "workload", ...chosen, service };
  }
}

/** `ip:port`, IPv6 in brackets. */
export function formatEndpoint(endpoint: Endpoint): string {
  return familyOf(endpoint.address) === 6
    ? `[${endpoint.address}]:${endpoint.port}`
    : `${endpoint.address}:${endpoint.port}`;
}

/** A service of the client's own namespace first, then a canonical one, then the first. */
export function best(services: readonly MeshService[], namespace: string): MeshService | undefined {
  return (
    services.find((each) => each.namespace === namespace) ?? services.find((each) => each.canonical) ?? services[0]
  );
}

function preferFamily(ips: readonly string[], like: string): string | undefined {
  if (ips.includes(like)) return like;
  return ips.find((ip) => familyOf(ip) === familyOf(like)) ?? ips[0];
}

function key(network: string, ip: string): string {
  return `${network}/${ip}`;
}

function append<K, V>(map: Map<K, V[]>, at: K, value: V): void {
  const list = map.get(at);
  if (list === undefined) map.set(at, [value]);
  else list.push(value);
}
