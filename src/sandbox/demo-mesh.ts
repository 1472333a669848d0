// SPDX-License-Identifier: Apache-2.0
// Who plays in the demo's story.
import type { MeshService, MeshWorkload } from "./mesh-config.ts";
import { addressesOf } from "./network.ts";

export const NAMESPACE = "demo";
export const OUTSIDE = "legacy";
/** Namespace whose pods have sidecars. */
export const SIDECARS = "sidecars";
export const VIP4 = "10.96.0.20";
export const VIP6 = "fd96::20";

/** What a real ztunnel must know at its start, the later pod included. */
export function demoMesh(): { workloads: MeshWorkload[]; services: MeshService[] } {
  const workload = (namespace: string, name: string, index: number, protocol: "HBONE" | "TCP"): MeshWorkload => ({
    namespace,
    name,
    serviceAccount: name,
    ips: addressesOf(index),
    protocol,
  });
  return {
    workloads: [
      workload(NAMESPACE, "client", 0, "HBONE"),
      workload(NAMESPACE, "server", 1, "HBONE"),
      workload(OUTSIDE, "outsider", 2, "TCP"),
      workload(NAMESPACE, "latecomer", 3, "HBONE"),
      workload(SIDECARS, "injected", 4, "TCP"),
    ],
    services: [{ namespace: NAMESPACE, name: "server", vips: [VIP4, VIP6], ports: { 80: 8080 }, pods: ["server"] }],
  };
}
