// SPDX-License-Identifier: Apache-2.0
import { writeFileSync } from "node:fs";
import { stringify } from "yaml";
import { NODE_NAME } from "./pod-records.ts";

/** A pod as ztunnel must know it; the addresses may belong to a pod that does not run yet. */
export interface MeshWorkload {
  readonly namespace: string;
  readonly name: string;
  readonly serviceAccount: string;
  readonly ips: readonly string[];
  readonly protocol: "HBONE" | "TCP";
  /** Default: the first node. */
  readonly node?: string;
}

export interface MeshService {
  readonly namespace: string;
  readonly name: string;
  readonly vips: readonly string[];
  /** Service port -> pod port. */
  readonly ports: Readonly<Record<number, number>>;
  /** Names of the pods behind it. */
  readonly pods: readonly string[];
}

/** Text of LOCAL_XDS_PATH (ztunnel.md 5.2). */
export function meshConfig(workloads: readonly MeshWorkload[], services: readonly MeshService[]): string {
  const hostname = (service: MeshService) => `${service.name}.${service.namespace}.svc.cluster.local`;
  // A real ztunnel takes ports only as YAML integers, which JSON cannot have as keys.
  const portMap = (service: MeshService) =>
    new Map(Object.entries(service.ports).map(([from, to]) => [Number(from), to]));
  const config = {
    workloads: workloads.map(({ namespace, name, serviceAccount, ips, protocol, node = NODE_NAME }) => ({
      uid: `cluster1//v1/Pod/${namespace}/${name}`,
      name,
      namespace,
      serviceAccount,
      trustDomain: "cluster.local",
      workloadIps: ips,
      protocol,
      node,
      network: "",
      services: Object.fromEntries(
        services
          .filter((service) => service.namespace === namespace && service.pods.includes(name))
          .map((service) => [`${service.namespace}/${hostname(service)}`, portMap(service)]),
      ),
    })),
    services: services.map((service) => ({
      name: service.name,
      namespace: service.namespace,
      hostname: hostname(service),
      vips: service.vips.map((vip) => `/${vip}`),
      ports: portMap(service),
      canonical: true,
    })),
    policies: [],
  };
  return stringify(config);
}

export function writeMeshConfig(
  path: string,
  workloads: readonly MeshWorkload[],
  services: readonly MeshService[],
): void {
  writeFileSync(path, meshConfig(workloads, services));
}
