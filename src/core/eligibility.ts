// SPDX-License-Identifier: Apache-2.0
import { DATAPLANE_MODE_LABEL, SIDECAR_STATUS_ANNOTATION } from "./constants.ts";
import { isTerminal, type Pod } from "./pod.ts";
import { type EnablementSelector, type Labels, matchesLabels, selectorText } from "./selector.ts";

export type Verdict = "ambient" | "sidecar" | "none";

/** Why, as a stable word; it labels metrics. */
export type EligibilityReason =
  | "selected"
  | "host-network"
  | "terminal"
  | "ztunnel"
  | "namespace-excluded"
  | "sidecar"
  | "sidecar-annotation"
  | "opted-out"
  | "not-selected"
  | "namespace-unknown";

export interface Eligibility {
  readonly verdict: Verdict;
  readonly reason: EligibilityReason;
  /** The same in words, naming the label or rule that decided. */
  readonly detail: string;
}

export interface EligibilityRules {
  readonly enablementSelectors: readonly EnablementSelector[];
  readonly excludedNamespaces: readonly string[];
}

const answer = (verdict: Verdict, reason: EligibilityReason, detail: string): Eligibility => ({
  verdict,
  reason,
  detail,
});

/**
 * The one predicate of the project: does this pod belong to the mesh, and why (not).
 * Same truth table as istio-cni (enablement_selector.go and the gates of its informer), with the
 * gates that upstream applies in only some of its consumers applied everywhere.
 * `namespaceLabels` undefined = the namespace is not in the cache: never ambient, never un-enrolled.
 */
export function evaluate(rules: EligibilityRules, pod: Pod, namespaceLabels: Labels | undefined): Eligibility {
  if (pod.hostNetwork) return answer("none", "host-network", "the pod uses the host's network");
  if (isTerminal(pod)) return answer("none", "terminal", `phase ${pod.phase}`);
  if (pod.labels.app === "ztunnel") return answer("none", "ztunnel", "label app=ztunnel");
  if (rules.excludedNamespaces.includes(pod.namespace)) {
    return answer("none", "namespace-excluded", `namespace ${pod.namespace} is excluded`);
  }
  if (Object.hasOwn(pod.annotations, SIDECAR_STATUS_ANNOTATION)) {
    const injected = [...pod.containers, ...pod.initContainers].includes("istio-proxy");
    if (injected && !pod.initContainers.includes("istio-init")) {
      return answer("sidecar", "sidecar", `annotation ${SIDECAR_STATUS_ANNOTATION} and container istio-proxy`);
    }
    return answer("none", "sidecar-annotation", `annotation ${SIDECAR_STATUS_ANNOTATION}`);
  }
  if (namespaceLabels === undefined) {
    return answer("none", "namespace-unknown", `namespace ${pod.namespace} is not known yet`);
  }
  for (const selector of rules.enablementSelectors) {
    if (matchesLabels(selector.podSelector, pod.labels) && matchesLabels(selector.namespaceSelector, namespaceLabels)) {
      return answer(
        "ambient",
        "selected",
        `pod ${selectorText(selector.podSelector)}; namespace ${selectorText(selector.namespaceSelector)}`,
      );
    }
  }
  if (pod.labels[DATAPLANE_MODE_LABEL] === "none") {
    return answer("none", "opted-out", `label ${DATAPLANE_MODE_LABEL}=none`);
  }
  return answer("none", "not-selected", "no enablement selector matches the pod and its namespace");
}
