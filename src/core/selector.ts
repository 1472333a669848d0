// SPDX-License-Identifier: Apache-2.0
// Kubernetes label selectors (metav1.LabelSelector) and the enablement selectors built from them.

export type SelectorOperator = "In" | "NotIn" | "Exists" | "DoesNotExist";

export interface SelectorRequirement {
  readonly key: string;
  readonly operator: SelectorOperator;
  readonly values: readonly string[];
}

/** All requirements must hold; none = matches everything. matchLabels are `In` with one value. */
export interface LabelSelector {
  readonly requirements: readonly SelectorRequirement[];
}

/** A pod matches when both halves match. */
export interface EnablementSelector {
  readonly podSelector: LabelSelector;
  readonly namespaceSelector: LabelSelector;
}

export type Labels = Readonly<Record<string, string>>;

function holds(requirement: SelectorRequirement, labels: Labels): boolean {
  const value = Object.hasOwn(labels, requirement.key) ? labels[requirement.key] : undefined;
  switch (requirement.operator) {
    case "In":
      return value !== undefined && requirement.values.includes(value);
    case "NotIn":
      // As Kubernetes: a missing key is not in any set.
      return value === undefined || !requirement.values.includes(value);
    case "Exists":
      return value !== undefined;
    case "DoesNotExist":
      return value === undefined;
  }
}

/** Whether every requirement holds for these labels. */
export function matchesLabels(selector: LabelSelector, labels: Labels): boolean {
  return selector.requirements.every((requirement) => holds(requirement, labels));
}

/** One line of text, for `inspect` and messages: `istio.io/dataplane-mode in (ambient)`. */
export function selectorText(selector: LabelSelector): string {
  if (selector.requirements.length === 0) return "everything";
  return selector.requirements
    .map(({ key, operator, values }) => {
      if (operator === "Exists") return key;
      if (operator === "DoesNotExist") return `!${key}`;
      return `${key} ${operator === "In" ? "in" : "notin"} (${values.join(",")})`;
    })
    .join(",");
}
