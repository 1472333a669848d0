// SPDX-License-Identifier: Apache-2.0
// What we keep of the API's objects. Their shapes are not trusted: a field of the wrong type counts
// as absent, a wrong value is left out and reported, and only an object without identity is refused.
import {
  BYPASS_INBOUND_ANNOTATION,
  CONFIG_HASH_ANNOTATION,
  DNS_CAPTURE_ANNOTATION,
  ENGINE_ANNOTATION,
  EXCLUDE_OUTBOUND_ANNOTATION,
  REDIRECTION_ANNOTATION,
  REROUTE_INTERFACES_ANNOTATION,
  SIDECAR_ANNOTATION,
  SIDECAR_CONTAINER,
  SIDECAR_ENV,
  SIDECAR_INJECT,
  SIDECAR_STATUS_ANNOTATION,
} from "../core/constants.ts";
import { messageOf } from "../core/errors.ts";
import { canonicalIp } from "../core/ip.ts";
import type { InitFailures, Namespace, Pod, PodPhase, SidecarProxy } from "../core/pod.ts";
import { isRecord, type JsonRecord, listOf, recordOf, textOf } from "./json.ts";

/** Told of each value that was left out, as a sentence. */
export type Report = (problem: string) => void;

const KEPT_ANNOTATIONS: readonly string[] = [
  REDIRECTION_ANNOTATION,
  DNS_CAPTURE_ANNOTATION,
  BYPASS_INBOUND_ANNOTATION,
  REROUTE_INTERFACES_ANNOTATION,
  SIDECAR_STATUS_ANNOTATION,
  EXCLUDE_OUTBOUND_ANNOTATION,
  ENGINE_ANNOTATION,
  CONFIG_HASH_ANNOTATION,
];

/** Of injected pods. */
const SIDECAR_ANNOTATIONS: readonly string[] = [SIDECAR_INJECT, ...Object.values(SIDECAR_ANNOTATION)];
const SIDECAR_VARIABLES: ReadonlySet<string> = new Set(Object.values(SIDECAR_ENV));
/** Longer than anything that a boolean or a role could be, short enough to keep. */
const MAX_PROXY_TEXT = 128;

/** Kubelet keeps no more. */
const MAX_TERMINATION_MESSAGE = 4096;

const PHASES: ReadonlySet<string> = new Set(["Pending", "Running", "Succeeded", "Failed", "Unknown"]);

/**
 * Undefined, and reported, when uid, name, namespace or version is missing. `marks`: further annotations of which
 * the presence is kept.
 */
export function podFromKube(object: unknown, report: Report, marks: readonly string[] = []): Pod | undefined {
  const source = recordOf(object);
  const metadata = recordOf(source.metadata);
  const spec = recordOf(source.spec);
  const status = recordOf(source.status);
  const identity = identityOf(metadata);
  const namespace = textOf(metadata.namespace);
  if (identity === undefined || namespace === "") {
    report(`a pod without uid, name, namespace or resourceVersion: ${excerpt(metadata)}`);
    return undefined;
  }
  const label = `pod ${namespace}/${identity.name}`;
  const annotations = annotationsOf(metadata, marks);
  return {
    ...identity,
    namespace,
    nodeName: textOf(spec.nodeName),
    serviceAccount: textOf(spec.serviceAccountName) || "default",
    labels: labelsOf(metadata),
    annotations,
    phase: phaseOf(status),
    ips: ipsOf(status, label, report),
    hostNetwork: spec.hostNetwork === true,
    runtimeClass: textOf(spec.runtimeClassName) || undefined,
    containers: namesOf(spec.containers),
    initContainers: namesOf(spec.initContainers),
    proxy: Object.hasOwn(annotations, SIDECAR_STATUS_ANNOTATION) ? proxyOf(spec) : undefined,
    initFailures: initFailuresOf(spec, status),
    containerIds: containerIdsOf(status),
    deleting: textOf(metadata.deletionTimestamp) !== "",
    createdAt: timeOf(metadata.creationTimestamp),
    dnsPolicy: textOf(spec.dnsPolicy) || "ClusterFirst",
    dnsNameservers: listOf(recordOf(spec.dnsConfig).nameservers)
      .map(textOf)
      .filter((address) => address !== ""),
  };
}

/** Undefined, and reported, when uid, name or version is missing. */
export function namespaceFromKube(object: unknown, report: Report): Namespace | undefined {
  const metadata = recordOf(recordOf(object).metadata);
  const identity = identityOf(metadata);
  if (identity === undefined) {
    report(`a namespace without uid, name or resourceVersion: ${excerpt(metadata)}`);
    return undefined;
  }
  return { ...identity, labels: labelsOf(metadata) };
}

function identityOf(metadata: Record<string, unknown>) {
  const uid = textOf(metadata.uid);
  const name = textOf(metadata.name);
  const resourceVersion = textOf(metadata.resourceVersion);
  return uid === "" || name === "" || resourceVersion === "" ? undefined : { uid, name, resourceVersion };
}

function labelsOf(metadata: Record<string, unknown>): Readonly<Record<string, string>> {
  return Object.fromEntries(Object.entries(recordOf(metadata.labels)).filter(isTextEntry));
}

function annotationsOf(metadata: Record<string, unknown>, marks: readonly string[]): Readonly<Record<string, string>> {
  const all = recordOf(metadata.annotations);
  const kept: Record<string, string> = {};
  const injected = typeof all[SIDECAR_STATUS_ANNOTATION] === "string";
  for (const name of injected ? [...KEPT_ANNOTATIONS, ...SIDECAR_ANNOTATIONS] : KEPT_ANNOTATIONS) {
    const value = Object.hasOwn(all, name) ? all[name] : undefined;
    // Of the sidecar's status only the presence counts, and its JSON is the longest of them all.
    if (typeof value === "string") kept[name] = name === SIDECAR_STATUS_ANNOTATION ? "" : value;
  }
  for (const name of marks) if (Object.hasOwn(all, name)) kept[name] ??= "";
  return kept;
}

function isTextEntry(entry: [string, unknown]): entry is [string, string] {
  return typeof entry[1] === "string";
}

function phaseOf(status: Record<string, unknown>): PodPhase {
  const phase = textOf(status.phase);
  if (phase === "") return "Pending";
  return PHASES.has(phase) ? (phase as PodPhase) : "Unknown";
}

function ipsOf(status: Record<string, unknown>, label: string, report: Report): readonly string[] {
  const listed = listOf(status.podIPs).map((entry) => (isRecord(entry) ? entry.ip : entry));
  const single = status.podIP;
  const found = listed.length > 0 ? listed : single === undefined || single === "" ? [] : [single];
  const ips = new Set<string>();
  for (const ip of found) {
    try {
      ips.add(canonicalIp(textOf(ip)));
    } catch (error) {
      report(`${label}: an address is ignored: ${messageOf(error)}`);
    }
  }
  return [...ips];
}

function timeOf(value: unknown): number | undefined {
  const time = Date.parse(textOf(value));
  return Number.isNaN(time) ? undefined : time;
}

function namesOf(containers: unknown): readonly string[] {
  return listOf(containers)
    .map((container) => textOf(recordOf(container).name))
    .filter((name) => name !== "");
}

function proxyOf(spec: Record<string, unknown>): SidecarProxy | undefined {
  // A native sidecar is an init container.
  const container = [...listOf(spec.containers), ...listOf(spec.initContainers)]
    .map(recordOf)
    .find(({ name }) => name === SIDECAR_CONTAINER.proxy);
  if (container === undefined) return undefined;
  const security = recordOf(container.securityContext);
  const [first, second] = listOf(container.args).map(textOf);
  const env: Record<string, string> = {};
  for (const variable of listOf(container.env)) {
    const { name, value } = recordOf(variable);
    // Of several of one name kubelet takes the last.
    if (typeof name === "string" && SIDECAR_VARIABLES.has(name)) env[name] = textOf(value).slice(0, MAX_PROXY_TEXT);
  }
  return {
    uid: idOf(security.runAsUser),
    gid: idOf(security.runAsGroup),
    role: (first === "proxy" ? second?.slice(0, MAX_PROXY_TEXT) : "") || undefined,
    env,
  };
}

/** As upstream's repair reads it: how a container last ended, unless it has ended well by now. */
function initFailuresOf(spec: JsonRecord, status: JsonRecord): InitFailures | undefined {
  const containers = listOf(status.initContainerStatuses)
    .map(recordOf)
    .flatMap((container) => {
      const ended = recordOf(container.state).terminated;
      if (isRecord(ended) && (ended.exitCode === 0 || ended.reason === "Completed")) return [];
      const last = recordOf(container.lastState).terminated;
      if (!isRecord(last) || typeof last.exitCode !== "number") return [];
      const message = textOf(last.message).slice(0, MAX_TERMINATION_MESSAGE).trim();
      return [{ name: textOf(container.name), exitCode: last.exitCode, message }];
    });
  if (containers.length === 0) return undefined;
  return {
    containers,
    restartPolicy: textOf(spec.restartPolicy) || "Always",
    schedulerName: textOf(spec.schedulerName),
    nominatedNodeName: textOf(status.nominatedNodeName),
  };
}

/** A uid or gid as the API takes one. */
function idOf(value: unknown): number | undefined {
  return typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= 0x7fffffff ? value : undefined;
}

function containerIdsOf(status: Record<string, unknown>): readonly string[] {
  return ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"]
    .flatMap((field) => listOf(status[field]))
    .map((container) => textOf(recordOf(container).containerID))
    .map((id) => id.slice(id.indexOf("://") < 0 ? 0 : id.indexOf("://") + 3))
    .filter((id) => id !== "");
}

function excerpt(metadata: Record<string, unknown>): string {
  return JSON.stringify({ namespace: metadata.namespace, name: metadata.name, uid: metadata.uid });
}
