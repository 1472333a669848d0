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
/** ztunnel wants integers for keys: a quoted port is refused, as it does. An empty map has no kind of key. */
const ports = v.pipe(
  v.unknown(),
  v.transform((value) => (isEmptyObject(value) ? new Map() : value)),
  v.map(port, port, "ports must be integers, as keys too"),
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
  const result = v.safeParse(file, plain(parse(yaml, { maxAliasCount: 100, mapAsMap: true }) ?? {}));
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

/** Maps with nothing but text for keys become objects; others stay what they are. */
function plain(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(plain);
  if (!(value instanceof Map)) return value;
  const entries: (readonly [unknown, unknown])[] = [...value].map(([key, each]) => [key, plain(each)]);
  const texts = entries.filter((entry): entry is readonly [string, unknown] => typeof entry[0] === "string");
  return texts.length === entries.length ? Object.fromEntries(texts) : new Map(entries);
}

function isEmptyObject(value: unknown): boolean {
  return typeof value === "object" && value !== null && !(value instanceof Map) && Object.keys(value).length === 0;
}

function isIp(value: string): boolean {
  try {
    canonicalIp(value);
    return true;
  } catch {
    return false;
  }
}
