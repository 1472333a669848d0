// SPDX-License-Identifier: Apache-2.0
import type { Directory } from "./directory.ts";
import type { MeshService, MeshWorkload } from "./mesh.ts";

/** The service an inbound connection probably meant, for the log: the one the client named, else one with its port. */
export function serviceFor(
  directory: Directory,
  workload: MeshWorkload,
  port: number,
  named?: string,
): MeshService | undefined {
  const services = directory.servicesOf(workload);
  return (
    services.find((service) => service.hostname === named) ??
    services.find((service) => [...service.ports.keys()].some((from) => targetPort(service, workload, from) === port))
  );
}

/** The workload's port behind a port of the service; undefined when there is none. */
export function targetPort(service: MeshService, workload: MeshWorkload, port: number): number | undefined {
  const own = service.endpoints.find((endpoint) => endpoint.workload.uid === workload.uid)?.ports.get(port);
  const target = own ?? service.ports.get(port);
  return target === undefined || target === 0 ? undefined : target;
}
