// SPDX-License-Identifier: Apache-2.0
import {
  DATAPLANE_MODE_LABEL,
  SIDECAR_CONTAINER,
  SIDECAR_ENV,
  SIDECAR_INJECT,
  SIDECAR_STATUS_ANNOTATION,
} from "./constants.ts";
import { parseGoBool } from "./go-bool.ts";
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
  /** Labelled for ambient too: the sidecar wins. */
  | "sidecar-labelled"
  | "sidecar-annotation"
  | "sidecar-init"
  | "sidecar-opted-out"
  | "sidecar-disabled"
  | "sidecar-role"
  | "opted-out"
  | "not-selected"
  | "namespace-unknown"
  /** No pod: a netns that somebody captured by hand. */
  | "manual";

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
  if (rules.excludedNamespaces.includes(pod.namespace)) {
    return answer("none", "namespace-excluded", `namespace ${pod.namespace} is excluded`);
  }
  const sidecar = sidecarOf(pod);
  const selection = selected(rules, pod, namespaceLabels);
  if (sidecar !== undefined) return selection === undefined ? sidecar : labelledToo(sidecar);
  if (pod.labels.app === "ztunnel") return answer("none", "ztunnel", "label app=ztunnel");
  if (namespaceLabels === undefined) {
    return answer("none", "namespace-unknown", `namespace ${pod.namespace} is not known yet`);
  }
  if (selection !== undefined) return answer("ambient", "selected", selection);
  if (pod.labels[DATAPLANE_MODE_LABEL] === "none") {
    return answer("none", "opted-out", `label ${DATAPLANE_MODE_LABEL}=none`);
  }
  return answer("none", "not-selected", "no enablement selector matches the pod and its namespace");
}

/** By which selector, in words; undefined: by none. */
function selected(rules: EligibilityRules, pod: Pod, namespaceLabels: Labels | undefined): string | undefined {
  if (namespaceLabels === undefined) return undefined;
  const found = rules.enablementSelectors.find(
    ({ podSelector, namespaceSelector }) =>
      matchesLabels(podSelector, pod.labels) && matchesLabels(namespaceSelector, namespaceLabels),
  );
  if (found === undefined) return undefined;
  return `pod ${selectorText(found.podSelector)}; namespace ${selectorText(found.namespaceSelector)}`;
}

/** An injected pod that is labelled for ambient too: said, and no more than that. */
function labelledToo(injected: Eligibility): Eligibility {
  const detail = `${injected.detail}; labelled for ambient too, but no injected pod is captured`;
  return { ...injected, detail, reason: injected.verdict === "sidecar" ? "sidecar-labelled" : injected.reason };
}

/**
 * What an injected pod is, by itself: `sidecar` when it counts on the CNI plugin for the redirection into its
 * sidecar. Never ambient, whatever its labels say. undefined for a pod that is not injected. The same
 * conditions as those of upstream's plugin (plugin.go).
 */
export function sidecarOf(pod: Pod): Eligibility | undefined {
  if (!Object.hasOwn(pod.annotations, SIDECAR_STATUS_ANNOTATION)) return undefined;
  const injected = `annotation ${SIDECAR_STATUS_ANNOTATION}`;
  const containers = [...pod.containers, ...pod.initContainers];
  const { proxy, init } = SIDECAR_CONTAINER;
  if (containers.includes(init)) return answer("none", "sidecar-init", `${injected}, and container ${init}`);
  if (!containers.includes(proxy)) return answer("none", "sidecar-annotation", `${injected}, no container ${proxy}`);
  const inject = Object.hasOwn(pod.labels, SIDECAR_INJECT) ? pod.labels[SIDECAR_INJECT] : undefined;
  const [where, wish] =
    inject === undefined ? ["annotation", pod.annotations[SIDECAR_INJECT]] : (["label", inject] as const);
  if (parseGoBool(wish ?? "") === false) {
    return answer("none", "sidecar-opted-out", `${injected}, and ${where} ${SIDECAR_INJECT}=${wish}`);
  }
  if (parseGoBool(pod.proxy?.env[SIDECAR_ENV.disabled] ?? "") === true) {
    return answer("none", "sidecar-disabled", `${injected}, and ${SIDECAR_ENV.disabled} of ${proxy} is true`);
  }
  const role = pod.proxy?.role;
  if (role !== undefined && role !== "sidecar") {
    return answer("none", "sidecar-role", `${injected}, but ${proxy} is a ${JSON.stringify(role)}, no sidecar`);
  }
  return answer("sidecar", "sidecar", `${injected} and container ${proxy}`);
}
