// SPDX-License-Identifier: Apache-2.0
// Kubernetes' NetworkPolicy, as far as it decides whether a pod of the mesh is reached at ztunnel's port.
import { type LabelSelector, type Labels, matchesLabels } from "./selector.ts";

export interface PolicyPort {
  readonly protocol: string;
  /** undefined: all of the protocol; a text is the name of a container's port. */
  readonly port: number | string | undefined;
  /** With it the range that begins at `port`. */
  readonly endPort: number | undefined;
}

export interface PolicyRule {
  /** Empty: every port. */
  readonly ports: readonly PolicyPort[];
}

export type PolicyDirection = "ingress" | "egress";

export interface NetworkPolicy {
  readonly namespace: string;
  readonly name: string;
  readonly podSelector: LabelSelector;
  /** What is let through; undefined for a direction that the policy says nothing about. */
  readonly rules: Readonly<Record<PolicyDirection, readonly PolicyRule[] | undefined>>;
}

/** A direction in which TCP is let through, and this port is not. */
export interface PolicyGap {
  readonly direction: PolicyDirection;
  /** Names of the policies that select the pod. */
  readonly policies: readonly string[];
}

/**
 * Where a pod's policies let TCP through, but not to `port`, whoever it comes from. Policies add up: what one of them
 * lets through is let through. A pod for which they let nothing through is meant to be alone: no gap.
 */
export function policyGaps(
  pod: { readonly namespace: string; readonly labels: Labels },
  policies: readonly NetworkPolicy[],
  port: number,
): readonly PolicyGap[] {
  return (["ingress", "egress"] as const).flatMap((direction) => {
    const selecting = policies.filter(
      ({ namespace, podSelector, rules }) =>
        namespace === pod.namespace && rules[direction] !== undefined && matchesLabels(podSelector, pod.labels),
    );
    const rules = selecting.flatMap((policy) => policy.rules[direction] ?? []);
    const isGap = rules.some(letsTcp) && !rules.some((rule) => lets(rule, port));
    return isGap ? [{ direction, policies: selecting.map(({ name }) => name) }] : [];
  });
}

const letsTcp = ({ ports }: PolicyRule) => ports.length === 0 || ports.some(({ protocol }) => protocol === "TCP");

function lets({ ports }: PolicyRule, wanted: number): boolean {
  if (ports.length === 0) return true;
  return ports.some(({ protocol, port, endPort }) => {
    if (protocol !== "TCP") return false;
    if (port === undefined) return true;
    return typeof port === "number" && wanted >= port && wanted <= (endPort ?? port);
  });
}
