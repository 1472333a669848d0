// SPDX-License-Identifier: Apache-2.0
// The static configuration of ztunnel (LOCAL_XDS_PATH): which workloads and services exist. The keys
// and defaults are ztunnel's own; what the stand-in does not implement is refused, never ignored.
import * as v from "valibot";
import { parse } from "yaml";
import { canonicalIp } from "../../core/ip.ts";
import type { Identity } from "../identity/spiffe.ts";

export interface MeshWorkload extends Identity {
  readonly uid: string;
  readonly name: string;
  readonly ips: readonly string[];
  readonly protocol: "HBONE" | "TCP";
  readonly node: string;
  readonly network: string;
  readonly workloadName: string;
  readonly workloadType: string;
  readonly canonicalName: string;
  readonly canonicalRevision: string;
  readonly clusterId: string;
}

export interface MeshEndpoint {
  readonly workload: MeshWorkload;
  /** Service port to target port, for the ports this endpoint maps itself. */
  readonly ports: ReadonlyMap<number, number>;
}

export interface MeshService {
  readonly name: string;
  readonly namespace: string;
  readonly hostname: string;
  readonly vips: readonly { readonly network: string; readonly address: string }[];
  readonly ports: ReadonlyMap<number, number>;
  readonly canonical: boolean;
  readonly endpoints: readonly MeshEndpoint[];
}

export interface Mesh {
  readonly workloads: readonly MeshWorkload[];
  readonly services: readonly MeshService[];
}

const text = v.optional(v.string(), "");
const ip = v.pipe(
  v.string(),
  v.check(isIp, (issue) => `not an IP address: ${JSON.stringify(issue.input)}`),
  v.transform(canonicalIp),
);
const port = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(65535));
const ports = v.pipe(
  v.record(v.pipe(v.string(), v.regex(/^\d{1,5}$/)), port),
  v.transform((record) => new Map(Object.entries(record).map(([from, to]) => [Number(from), to] as const))),
);
const empty = v.optional(
  v.pipe(v.array(v.unknown()), v.maxLength(0, "the stand-in enforces no policies, so it refuses to be given any")),
  [],
);

const workload = v.strictObject({
  workloadIps: v.array(ip),
  protocol: v.optional(v.picklist(["HBONE", "TCP"]), "TCP"),
  networkMode: v.optional(v.literal("Standard"), "Standard"),
  uid: text,
  name: text,
  namespace: v.string(),
  trustDomain: text,
  serviceAccount: text,
  network: text,
  workloadName: text,
  workloadType: text,
  canonicalName: text,
  canonicalRevision: text,
  node: text,
  status: v.optional(v.literal("Healthy"), "Healthy"),
  clusterId: text,
  authorizationPolicies: empty,
  services: v.record(v.string(), ports),
});

const service = v.strictObject({
  name: v.string(),
  namespace: v.string(),
  hostname: v.string(),
  vips: v.array(
    v.pipe(
      v.string(),
      v.transform((vip) => {
        const slash = vip.indexOf("/");
        return { network: vip.slice(0, Math.max(0, slash)), address: vip.slice(slash + 1) };
      }),
      v.object({ network: v.string(), address: ip }),
    ),
  ),
  ports,
  canonical: v.optional(v.boolean(), false),
});

const file = v.strictObject({
  workloads: v.optional(v.array(workload), []),
  services: v.optional(v.array(service), []),
  policies: empty,
});

/** Reads the YAML of ztunnel.md 5.2. @throws Error that names every value that is wrong. */
export function parseMesh(yaml: string): Mesh {
  const result = v.safeParse(file, parse(yaml, { maxAliasCount: 100 }) ?? {});
  if (!result.success) {
    const problems = result.issues.map((issue) => `${v.getDotPath(issue) ?? "(top)"}: ${issue.message}`);
    throw new Error(`the mesh configuration is wrong: ${problems.join("; ")}`);
  }
  const workloads = result.output.workloads.map(({ services, workloadIps, ...rest }) => ({
    services,
    workload: { ...rest, ips: workloadIps } satisfies MeshWorkload,
  }));
  const services = result.output.services.map((entry) => ({
    ...entry,
    endpoints: workloads.flatMap(({ workload, services: serves }) => {
      const mapped = serves[`${entry.namespace}/${entry.hostname}`];
      return mapped === undefined ? [] : [{ workload, ports: mapped }];
    }),
  }));
  return { workloads: workloads.map((each) => each.workload), services };
}

function isIp(value: string): boolean {
  try {
    canonicalIp(value);
    return true;
  } catch {
    return false;
  }
}
