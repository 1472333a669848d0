// SPDX-License-Identifier: Apache-2.0
// Every metric there is. docs/metrics.md is generated from this table.

import { RELIST_REASONS } from "../core/ports/cluster.ts";
import { ENGINE_NAMES, FALLBACK_KINDS } from "../core/ports/dataplane.ts";
import type { DriftKind } from "../core/ports/drift.ts";
import type { MetricLabels } from "../core/ports/telemetry.ts";
import { CLOSE_REASONS, REJECT_REASONS } from "../core/ports/ztunnel.ts";

export interface MetricRow {
  readonly name: string;
  readonly type: "counter" | "gauge" | "histogram";
  readonly labels: readonly string[];
  readonly help: string;
  /** Upper bounds in seconds, of a histogram. */
  readonly buckets?: readonly number[];
  /**
   * Series of a counter that are there from the start, as 0: Prometheus sees no increase in one that begins at 1, so
   * that what happens once would not be seen.
   */
  readonly zeros?: readonly MetricLabels[];
}

const counter = (
  name: string,
  labels: readonly string[],
  help: string,
  zeros: readonly MetricLabels[] = [],
): MetricRow => ({
  name,
  type: "counter",
  labels,
  help,
  zeros,
});
const gauge = (name: string, labels: readonly string[], help: string): MetricRow => ({
  name,
  type: "gauge",
  labels,
  help,
});
const histogram = (name: string, labels: readonly string[], help: string, buckets: readonly number[]): MetricRow => ({
  name,
  type: "histogram",
  labels,
  help,
  buckets,
});

const DRIFT_KINDS: Readonly<Record<DriftKind, true>> = {
  capture: true,
  redirection: true,
  unwanted: true,
  hooks: true,
  probes: true,
  probe_hooks: true,
  plugin: true,
  configuration: true,
  kubeconfig: true,
};

/** Why a connection of ztunnel ends, or is not taken. */
const DISCONNECT_REASONS = [...new Set<string>([...CLOSE_REASONS, ...REJECT_REASONS])];

const each = (label: string, values: readonly string[]): MetricLabels[] => values.map((value) => ({ [label]: value }));

const FALLBACKS = ENGINE_NAMES.flatMap((from) =>
  ENGINE_NAMES.filter((to) => to !== from).flatMap((to) => FALLBACK_KINDS.map((kind) => ({ from, to, kind }))),
);

const FAST = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

/** Upstream's istio-cni has these, by these names and labels. */
export const UPSTREAM_METRICS: readonly MetricRow[] = [
  counter("istio_cni_installs_total", ["result"], "Installations of the CNI plugin"),
  gauge("istio_cni_install_ready", [], "1 when the CNI plugin is installed and valid"),
  counter(
    "istio_cni_plugin_requests_total",
    ["response_code"],
    "Requests of the CNI plugin, by HTTP status of the answer",
  ),
  counter("nodeagent_reconcile_events_total", ["type"], "Pod and namespace events handled, retries included"),
  gauge("ztunnel_connected", [], "Connections from ztunnel"),
  counter(
    "istio_cni_repair_pods_repaired_total",
    ["type", "result"],
    "Sidecar pods repaired, by kind of repair and result",
  ),
];

/** Ours. */
export const OWN_METRICS: readonly MetricRow[] = [
  gauge("ambient_cni_pods", ["state", "reason"], "Pods of this node by state of enrolment and reason"),
  histogram("ambient_cni_enroll_seconds", ["engine", "phase"], "Time of each phase of an enrolment", FAST),
  histogram(
    "ambient_cni_sidecar_redirect_seconds",
    ["engine"],
    "Time to write and verify the redirection into a pod's sidecar",
    FAST,
  ),
  gauge("ambient_cni_captured_pods", ["engine"], "Captured pods by the engine that captures them"),
  gauge(
    "ambient_cni_astray_pods",
    ["kind", "reason"],
    "Running pods that belong to the mesh and are not captured, or are captured and do not belong to it",
  ),
  gauge("ambient_cni_queue_depth", [], "Pods that wait for their turn or are being worked on"),
  gauge("ambient_cni_queue_oldest_seconds", [], "For how long the pod has waited whose turn is overdue most"),
  gauge("ambient_cni_queue_sleeping", [], "Pods that are tried again after a pause, since they failed"),
  counter("ambient_cni_retries_total", ["code"], "Failed attempts that are tried again, by error code"),
  histogram("ambient_cni_zds_ack_seconds", ["type"], "Time until ztunnel acknowledged a message", FAST),
  counter("ambient_cni_zds_messages_total", ["type", "result"], "Messages to ztunnel by type and result"),
  counter(
    "ambient_cni_zds_disconnects_total",
    ["reason"],
    "Connections of ztunnel that ended, by reason",
    each("reason", DISCONNECT_REASONS),
  ),
  gauge(
    "ambient_cni_ztunnel_stuck",
    ["sign"],
    "Signs that a ztunnel does not answer: processes of it that are stopped (process), listeners of it at which connections wait and none is accepted (listener)",
  ),
  counter("ambient_cni_kube_watch_events_total", ["resource", "type"], "Watch events from the API server"),
  counter(
    "ambient_cni_kube_relists_total",
    ["resource", "reason"],
    "Full lists from the API server, by reason",
    ["pods", "namespaces"].flatMap((resource) => RELIST_REASONS.map((reason) => ({ resource, reason }))),
  ),
  gauge("ambient_cni_kube_watch_age_seconds", ["resource"], "Age of the open watch, 0 while there is none"),
  histogram("ambient_cni_plugin_request_seconds", ["verb"], "Time to answer the CNI plugin", FAST),
  counter(
    "ambient_cni_plugin_requests_total",
    ["verb", "verdict", "result"],
    "Requests of the CNI plugin, by what the pod is and by result: ok, handover (asked again with the netns) or the code of the error",
  ),
  gauge(
    "ambient_cni_engine",
    ["engine", "reason"],
    "1 for the engine that new pods get, with the reason of the choice",
  ),
  counter(
    "ambient_cni_engine_fallbacks_total",
    ["from", "to", "kind"],
    "Pods that got another engine than the node's, by kind of reason: ineligible or failed",
    FALLBACKS,
  ),
  gauge("ambient_cni_self_test_success", ["engine"], "1 when the engine has proved at the start that it works here"),
  gauge("ambient_cni_self_test_seconds", ["engine"], "How long the engine's self-test took at the start"),
  gauge("ambient_cni_self_test_losses", ["engine"], "Features of the engine that this node does not have"),
  counter(
    "ambient_cni_verdicts_total",
    ["engine", "verdict"],
    "Decisions about connections, DNS questions and SYNs of captured pods since the agent started",
  ),
  gauge("ambient_cni_verdicts_age_seconds", [], "Age of the oldest reading of a pod's verdicts"),
  gauge(
    "ambient_cni_existing_connections",
    [],
    "Open connections of enrolled pods that are older than their capture: in the clear until they close",
  ),
  counter("ambient_cni_existing_connections_reset_total", [], "Connections older than the capture that were reset"),
  counter("ambient_cni_late_captures_total", [], "Pods that started while the agent was away and were captured later"),
  counter(
    "ambient_cni_drift_repairs_total",
    ["what"],
    "What another program had changed in the kernel or on the node, repaired",
    each("what", Object.keys(DRIFT_KINDS)),
  ),
  gauge(
    "ambient_cni_drift_last_repair_timestamp_seconds",
    [],
    "When drift was repaired last, Unix time; 0 = not since the agent started",
  ),
  gauge(
    "ambient_cni_sidecar_pods",
    ["redirection"],
    "Running sidecar pods by redirection: redirected, foreign, absent, differs, outdated or unknown",
  ),
  counter(
    "ambient_cni_install_repairs_total",
    ["what"],
    "Times that the node's CNI plugin or configuration had been changed by another program, repaired",
    each("what", ["plugin", "configuration", "kubeconfig"] satisfies readonly DriftKind[]),
  ),
  gauge("ambient_cni_measure_seconds", [], "How long the agent took to measure for the scrape before"),
  gauge(
    "ambient_cni_build_info",
    ["version", "nodejs", "kernel"],
    "1, labelled with the versions of the agent, of what runs it and of the kernel",
  ),
];

export const METRICS: readonly MetricRow[] = [...UPSTREAM_METRICS, ...OWN_METRICS];
