// SPDX-License-Identifier: Apache-2.0
// The environment of the stand-in: ztunnel's own variables with ztunnel's defaults (its src/config.rs),
// so that one environment starts either; STANDIN_* and ZTUNNEL_DNS_UPSTREAM are ours alone.
import { isIP } from "node:net";
import { parse } from "yaml";
import { ZTUNNEL_MARK } from "../../core/constants.ts";
import { canonicalIp } from "../../core/ip.ts";
import type { Endpoint } from "../../native/binding.ts";

export interface Settings {
  readonly uds: string;
  /** Undefined: every workload counts as local. */
  readonly nodeName: string | undefined;
  readonly meshPath: string;
  readonly network: string;
  readonly clusterDomain: string;
  readonly ipv6: boolean;
  /** 0: packets are not marked. */
  readonly mark: number;
  readonly reusePort: boolean;
  /** IP_TRANSPARENT and source spoofing: tried, required or left out. */
  readonly originalSource: "try" | "require" | "off";
  readonly dnsCapture: boolean;
  /** Undefined: names that are not in the mesh are answered with SERVFAIL. */
  readonly dnsUpstream: Endpoint | undefined;
  readonly drainMs: number;
  readonly poolStreams: number;
  readonly poolIdleMs: number;
  readonly adminPort: number;
  readonly readinessPort: number;
  /** PEM of the authority that all stand-ins of a sandbox share; undefined: one of its own. */
  readonly authorityPath: string | undefined;
  /** Where JSON events go: an inherited fd or a file to append to. */
  readonly events: number | string | undefined;
}

type Environment = Readonly<Record<string, string | undefined>>;

/** Reads the environment. @throws Error that lists every variable whose value is wrong. */
export function readSettings(env: Environment): Settings {
  const problems: string[] = [];
  const read = <T>(name: string, fallback: T, convert: (text: string) => T): T => {
    const value = env[name];
    if (value === undefined || value === "") return fallback;
    try {
      return convert(value);
    } catch (error) {
      problems.push(`${name}=${JSON.stringify(value)}: ${error instanceof Error ? error.message : String(error)}`);
      return fallback;
    }
  };
  const text = (value: string) => value;
  const maybe = (value: string): string | undefined => value;
  const grace = read("TERMINATION_GRACE_PERIOD_SECONDS", undefined, (value): number | undefined => integer(value));
  const settings: Settings = {
    uds: read("INPOD_UDS", "/var/run/ztunnel/ztunnel.sock", text),
    nodeName: read("NODE_NAME", undefined, maybe),
    meshPath: read("LOCAL_XDS_PATH", "", text),
    network: read("NETWORK", "", text),
    clusterDomain: read("CLUSTER_DOMAIN", "cluster.local", text),
    ipv6: read("IPV6_ENABLED", true, flag),
    mark: read("PACKET_MARK", ZTUNNEL_MARK, (value) => integer(value, 0xffff_ffff)),
    reusePort: read("INPOD_PORT_REUSE", true, flag),
    originalSource: read("ENABLE_ORIG_SRC", "try", (value) => (flag(value) ? "require" : "off")),
    dnsCapture: read("ISTIO_META_DNS_CAPTURE", true, flag),
    dnsUpstream: read("ZTUNNEL_DNS_UPSTREAM", undefined, (value): Endpoint | undefined => endpoint(value)),
    drainMs: read(
      "CONNECTION_TERMINATION_DEADLINE",
      grace === undefined ? 5000 : Math.max(0, grace - 5) * 1000,
      duration,
    ),
    poolStreams: read("POOL_MAX_STREAMS_PER_CONNECTION", 100, (value) => integer(value, 65535)),
    poolIdleMs: read("POOL_UNUSED_RELEASE_TIMEOUT", 300_000, duration),
    adminPort: read("STANDIN_ADMIN_PORT", read("PROXY_CONFIG", 15000, proxyAdminPort), port),
    readinessPort: read("STANDIN_READINESS_PORT", 15021, port),
    authorityPath: read("STANDIN_CA", undefined, maybe),
    events: read("STANDIN_EVENTS", undefined, (value): number | string | undefined =>
      /^\d+$/.test(value) ? integer(value) : value,
    ),
  };
  if (settings.meshPath === "")
    problems.push("LOCAL_XDS_PATH is not set: the stand-in has no other source of workloads");
  if (problems.length > 0) throw new Error(problems.join("; "));
  return settings;
}

function flag(value: string): boolean {
  if (value === "true") return true;
  if (value === "false") return false;
  throw new Error("neither true nor false");
}

function integer(value: string, max = Number.MAX_SAFE_INTEGER): number {
  const number = Number(value);
  if (!/^\d{1,16}$/.test(value) || number > max) throw new Error(`not an integer from 0 to ${max}`);
  return number;
}

function port(value: string): number {
  return integer(value, 65535);
}

/** A duration as ztunnel writes them: `5s`, `500ms`, `2m`; bare numbers are seconds. Returns ms. */
function duration(value: string): number {
  const [, digits = "", unit = "s"] = /^(\d{1,9})(ms|s|m|h)?$/.exec(value) ?? [];
  if (digits === "") throw new Error("not a duration such as 500ms, 5s or 2m");
  return Number(digits) * ({ ms: 1, s: 1000, m: 60_000, h: 3_600_000 }[unit] ?? 1000);
}

function endpoint(value: string): Endpoint {
  const [, address = "", portText = ""] = /^\[?([^\]]+?)\]?:(\d{1,5})$/.exec(value) ?? [];
  if (isIP(address) === 0) throw new Error("not an address such as 10.0.0.1:53 or [fd00::1]:53");
  return { address: canonicalIp(address), port: port(portText) };
}

function proxyAdminPort(value: string): number {
  const config: unknown = parse(value);
  if (typeof config !== "object" || config === null) throw new Error("not a YAML object");
  const wanted = "proxyAdminPort" in config ? config.proxyAdminPort : 15000;
  if (typeof wanted !== "number" || !Number.isInteger(wanted) || wanted < 0 || wanted > 65535) {
    throw new Error("proxyAdminPort is not a port");
  }
  return wanted;
}
