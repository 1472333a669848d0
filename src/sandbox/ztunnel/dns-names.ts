// SPDX-License-Identifier: Apache-2.0
// Which services a DNS name means to a client: ztunnel's search rules (its src/dns/server.rs).
import { familyOf } from "../../core/ip.ts";
import { best, type Directory } from "./directory.ts";
import type { MeshService, MeshWorkload } from "./mesh.ts";

export interface NameMatch {
  readonly service: MeshService;
  /** Set when a search domain had to be taken off: the answer is a CNAME to it, then addresses. */
  readonly stripped: string | undefined;
}

interface Alias {
  readonly name: string;
  readonly stripped: string | undefined;
}

/** Finds the service a client means; undefined when the mesh does not know the name. No trailing dots. */
export function findService(
  directory: Directory,
  client: MeshWorkload,
  name: string,
  clusterDomain: string,
): NameMatch | undefined {
  for (const alias of aliases(name.toLowerCase(), client.namespace, clusterDomain)) {
    for (const candidate of wildcards(alias.name)) {
      // A service without address is left to the upstream resolver, unless it is a headless one of Kubernetes.
      const services = directory
        .servicesNamed(candidate)
        .filter((each) => each.vips.length > 0 || each.hostname.endsWith(`.svc.${clusterDomain}`));
      const service = best(services, client.namespace);
      if (service !== undefined) {
        return { service, stripped: candidate.startsWith("*.") ? undefined : alias.stripped };
      }
    }
  }
  return undefined;
}

/** Addresses of one family that the client may call: the VIPs of its network, or a headless service's endpoints. */
export function addressesOf(service: MeshService, client: MeshWorkload, family: 4 | 6): string[] {
  if (service.vips.length === 0) {
    return service.endpoints.flatMap(({ workload }) =>
      workload.ips.filter((ip) => familyOf(ip) === family).slice(0, 1),
    );
  }
  return service.vips
    .filter((vip) => vip.network === client.network && familyOf(vip.address) === family)
    .map((vip) => vip.address);
}

/** The name itself, its Kubernetes expansions, and the same for what is left without a search domain. */
function aliases(name: string, namespace: string, clusterDomain: string): Alias[] {
  const found = new Map<string, Alias>();
  const add = (alias: Alias) => {
    if (!found.has(alias.name)) found.set(alias.name, alias);
  };
  const addExpanded = (base: string, stripped: string | undefined) => {
    add({ name: base, stripped });
    for (const expanded of kubernetesNames(base, namespace, clusterDomain)) add({ name: expanded, stripped });
  };
  addExpanded(name, undefined);
  for (const domain of [`${namespace}.svc.${clusterDomain}`, `svc.${clusterDomain}`, clusterDomain]) {
    if (!name.endsWith(`.${domain}`)) continue;
    const rest = name.slice(0, -domain.length - 1);
    addExpanded(rest, rest);
  }
  return [...found.values()];
}

function kubernetesNames(name: string, namespace: string, clusterDomain: string): string[] {
  const labels = name.split(".").length;
  const inService = name.endsWith(".svc");
  const local = `${name}.${namespace}.svc.${clusterDomain}`;
  const service = `${name}.svc.${clusterDomain}`;
  const cluster = `${name}.${clusterDomain}`;
  if (labels === 1) return [local];
  if (labels === 2) return [service, local];
  if (labels === 3) return inService ? [cluster, service] : [service];
  return labels === 4 && inService ? [cluster] : [];
}

/** `a.b.c`, `*.b.c`, `*.c`. */
function wildcards(name: string): string[] {
  const labels = name.split(".");
  return [name, ...labels.slice(1).map((_, index) => `*.${labels.slice(index + 1).join(".")}`)];
}
