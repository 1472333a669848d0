// SPDX-License-Identifier: Apache-2.0
import { stringify } from "yaml";
import type { TestNode } from "./pods.ts";

export const VIP = { 4: "10.96.0.20", 6: "fd96::20" } as const;
/** A Map, because ztunnel wants numbers for keys and JSON would quote them. */
const PORTS = new Map([[80, 8080]]);
export const SERVICE = "server.default.svc.cluster.local";

/** LOCAL_XDS_PATH for a node's pods but the unknown: HBONE for those named, a service in front of `server`. */
export function meshOf(node: TestNode, hbone: readonly string[], unknown: readonly string[] = []): string {
  const known = [...node.pods.values()].filter(({ name }) => !unknown.includes(name));
  const workloads = known.map(({ name, ipv4, ipv6 }) => ({
    uid: `cluster1//v1/Pod/default/${name}`,
    name,
    namespace: "default",
    serviceAccount: `${name}-sa`,
    trustDomain: "cluster.local",
    workloadIps: [ipv4, ipv6],
    protocol: hbone.includes(name) ? "HBONE" : "TCP",
    node: "node1",
    network: "",
    services: name === "server" ? { [`default/${SERVICE}`]: PORTS } : {},
  }));
  const services = [
    {
      name: "server",
      namespace: "default",
      hostname: SERVICE,
      vips: [`/${VIP[4]}`, `/${VIP[6]}`],
      ports: PORTS,
      canonical: true,
    },
  ];
  return stringify({ workloads, services, policies: [] }, { aliasDuplicateObjects: false });
}
