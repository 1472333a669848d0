// SPDX-License-Identifier: Apache-2.0
import type { TestNode } from "./pods.ts";

export const VIP = { 4: "10.96.0.20", 6: "fd96::20" } as const;
export const SERVICE = "server.default.svc.cluster.local";

/** LOCAL_XDS_PATH for a node's pods: HBONE for those named, a service in front of `server` from 80 to 8080. */
export function meshOf(node: TestNode, hbone: readonly string[]): string {
  const workloads = [...node.pods.values()].map(({ name, ipv4, ipv6 }) => ({
    uid: `cluster1//v1/Pod/default/${name}`,
    name,
    namespace: "default",
    serviceAccount: `${name}-sa`,
    trustDomain: "cluster.local",
    workloadIps: [ipv4, ipv6],
    protocol: hbone.includes(name) ? "HBONE" : "TCP",
    node: "node1",
    network: "",
    services: name === "server" ? { [`default/${SERVICE}`]: { 80: 8080 } } : {},
  }));
  const services = [
    {
      name: "server",
      namespace: "default",
      hostname: SERVICE,
      vips: [`/${VIP[4]}`, `/${VIP[6]}`],
      ports: { 80: 8080 },
      canonical: true,
    },
  ];
  return JSON.stringify({ workloads, services, policies: [] });
}

/** The mesh without one pod: for destinations that ztunnel does not know. */
export function without(mesh: string, name: string): string {
  const config: { workloads: { name: string }[] } = JSON.parse(mesh);
  return JSON.stringify({ ...config, workloads: config.workloads.filter((each) => each.name !== name) });
}
