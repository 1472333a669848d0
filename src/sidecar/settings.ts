// SPDX-License-Identifier: Apache-2.0
// What a sidecar pod says about its redirection. Its author is not trusted: whatever is said here ends up in
// rule texts, so a value that is not exactly what it should be stops the pod, and the message names it.
import { REROUTE_INTERFACES_ANNOTATION, SIDECAR_ANNOTATION, SIDECAR_ENV } from "../core/constants.ts";
import { AgentError } from "../core/errors.ts";
import { parseGoBool } from "../core/go-bool.ts";
import { canonicalCidr } from "../core/ip.ts";
import type { Pod } from "../core/pod.ts";

export interface SidecarSettings {
  readonly mode: "REDIRECT" | "TPROXY";
  /** Of the proxy: its own packets are never sent back to it. */
  readonly uid: number;
  readonly gid: number;
  readonly includeOutboundCidrs: "*" | readonly string[];
  readonly excludeOutboundCidrs: readonly string[];
  readonly includeInboundPorts: "*" | readonly number[];
  readonly excludeInboundPorts: readonly number[];
  readonly includeOutboundPorts: readonly number[];
  readonly excludeOutboundPorts: readonly number[];
  readonly excludeInterfaces: readonly string[];
  readonly rerouteInterfaces: readonly string[];
  readonly dnsCapture: boolean;
  readonly dualStack: boolean;
  readonly dropInvalid: boolean;
  /** Sentences about what is not heeded. */
  readonly warnings: readonly string[];
}

const PROXY_ID = 1337;
const STATUS_PORT = 15020;
/** Status, health and metrics of the sidecar: asked from outside, in plain text. */
const ALWAYS_EXCLUDED_INBOUND = [STATUS_PORT, 15021, 15090] as const;

const MAX_PORTS = 1024;
const MAX_CIDRS = 4096;
const MAX_INTERFACES = 64;
/** As overrides.ts, and none begins with a dash: iptables-restore would take it for an option. */
const INTERFACE_NAME = /^(?!-)[A-Za-z0-9_.-]{1,15}$/;
const PORT = /^\d{1,5}$/;

const MODES = ["REDIRECT", "TPROXY"] as const;

interface ListKind<T> {
  /** "a port from 0 to 65535": what each item is. */
  readonly item: string;
  readonly limit: number;
  /** Nothing between two commas is passed over, as upstream does with some. */
  readonly gaps?: boolean;
  readonly parse: (text: string) => T | undefined;
}

const PORTS: ListKind<number> = {
  item: "a port from 0 to 65535",
  limit: MAX_PORTS,
  parse: (text) => (PORT.test(text) && Number(text) <= 65_535 ? Number(text) : undefined),
};

const CIDRS: ListKind<string> = {
  item: "a CIDR such as 10.0.0.0/8 or fd00::/8",
  limit: MAX_CIDRS,
  parse: (text) => {
    // As upstream, which this pod may meet again: a bare address is no CIDR.
    if (!text.includes("/")) return undefined;
    try {
      return canonicalCidr(text);
    } catch {
      return undefined;
    }
  },
};

const INTERFACES: ListKind<string> = {
  item: "the name of an interface: 1 to 15 characters out of A-Z a-z 0-9 _ . -, not beginning with -",
  limit: MAX_INTERFACES,
  gaps: true,
  parse: (text) => (INTERFACE_NAME.test(text) && text !== "." && text !== ".." ? text : undefined),
};

/**
 * Settings of one sidecar pod: annotations and the container istio-proxy, else upstream's defaults. A
 * variable that Go would not parse as a boolean counts as absent, with a warning, as upstream.
 * @throws AgentError ANNOTATION_INVALID naming annotation, value and what is allowed
 */
export function sidecarSettings(pod: Pick<Pod, "annotations" | "proxy">): SidecarSettings {
  const { annotations, proxy } = pod;
  const warnings: string[] = [];
  const value = (name: string) => (Object.hasOwn(annotations, name) ? annotations[name] : undefined);
  const list = <T>(name: string, kind: ListKind<T>, fallback: readonly T[]): readonly T[] => {
    const text = value(name);
    return text === undefined ? fallback : parseList(name, text, kind, "");
  };
  const listOrAll = <T>(name: string, kind: ListKind<T>): "*" | readonly T[] => {
    const text = value(name);
    return text === undefined || text === "*" ? "*" : parseList(name, text, kind, "* for all, or ");
  };
  const flag = (name: string): boolean => {
    const text = proxy !== undefined && Object.hasOwn(proxy.env, name) ? proxy.env[name] : undefined;
    if (text === undefined) return false;
    const parsed = parseGoBool(text);
    if (parsed === undefined) {
      warnings.push(`${name}=${shown(text)} of istio-proxy is neither true nor false; it is ignored`);
    }
    return parsed ?? false;
  };
  const modeText = value(SIDECAR_ANNOTATION.mode);
  const mode = modeText === undefined ? "REDIRECT" : MODES.find((known) => known === modeText);
  if (mode === undefined) throw invalid(SIDECAR_ANNOTATION.mode, modeText ?? "", `one of ${MODES.join(", ")}`);
  const reroute =
    value(REROUTE_INTERFACES_ANNOTATION) === undefined
      ? SIDECAR_ANNOTATION.kubevirtInterfaces
      : REROUTE_INTERFACES_ANNOTATION;
  const excludeInboundPorts = list(SIDECAR_ANNOTATION.excludeInboundPorts, PORTS, []);
  return {
    mode,
    uid: proxy?.uid || PROXY_ID,
    gid: proxy?.gid || PROXY_ID,
    includeOutboundCidrs: listOrAll(SIDECAR_ANNOTATION.includeOutboundIpRanges, CIDRS),
    excludeOutboundCidrs: list(SIDECAR_ANNOTATION.excludeOutboundIpRanges, CIDRS, []),
    includeInboundPorts: listOrAll(SIDECAR_ANNOTATION.includeInboundPorts, PORTS),
    excludeInboundPorts: [...new Set([...excludeInboundPorts, ...ALWAYS_EXCLUDED_INBOUND])],
    includeOutboundPorts: list(SIDECAR_ANNOTATION.includeOutboundPorts, PORTS, []),
    excludeOutboundPorts: list(SIDECAR_ANNOTATION.excludeOutboundPorts, PORTS, [STATUS_PORT]),
    excludeInterfaces: list(SIDECAR_ANNOTATION.excludeInterfaces, INTERFACES, []),
    rerouteInterfaces: list(reroute, INTERFACES, []),
    dnsCapture: flag(SIDECAR_ENV.dnsCapture),
    dualStack: flag(SIDECAR_ENV.dualStack),
    dropInvalid: flag(SIDECAR_ENV.dropInvalid),
    warnings,
  };
}

/** `*` among several items is no item: it stands alone, and only where `listOrAll` takes it. */
function parseList<T>(name: string, text: string, kind: ListKind<T>, or: string): readonly T[] {
  const items = new Set<T>();
  if (text.trim() === "") return [];
  for (const part of text.split(",")) {
    if (kind.gaps && part.trim() === "") continue;
    const item = kind.parse(part.trim());
    if (item === undefined) throw invalid(name, text, `${or}a list separated by commas, each item ${kind.item}`, part);
    items.add(item);
    if (items.size > kind.limit) throw invalid(name, text, `at most ${kind.limit} items`);
  }
  return [...items];
}

function invalid(name: string, value: string, allowed: string, item?: string): AgentError {
  const part = item === undefined || item === value ? "" : `: ${shown(item)} is wrong`;
  return new AgentError(
    "ANNOTATION_INVALID",
    `annotation ${name}=${shown(value)} is not allowed${part}`,
    `allowed is ${allowed}`,
  );
}

function shown(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 77)}...` : text);
}
