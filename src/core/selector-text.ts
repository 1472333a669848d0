// SPDX-License-Identifier: Apache-2.0
// Label and field selectors in the text form of Kubernetes' query parameters (labels.Parse, fields.Parse).
import { labelKeyFault, labelValueFault } from "./labels.ts";
import type { Pod } from "./pod.ts";
import type { LabelSelector, SelectorRequirement } from "./selector.ts";

const shown = (text: string): string => JSON.stringify(text.length > 80 ? `${text.slice(0, 77)}...` : text);

/** @throws Error that names the part which is no requirement. */
export function parseLabelSelector(text: string): LabelSelector {
  if (text.trim() === "") return { requirements: [] };
  // Commas inside the parentheses of a set belong to it.
  const requirements = text.split(/,(?![^(]*\))/).map((part) => {
    const requirement = requirementOf(part.trim());
    if (requirement === undefined) {
      throw new Error(`must be a label selector, of which ${shown(part)} is no part`);
    }
    const fault =
      labelKeyFault(requirement.key) ?? requirement.values.map(labelValueFault).find((one) => one !== undefined);
    if (fault !== undefined) throw new Error(`must be a label selector: ${shown(part)}: ${fault}`);
    return requirement;
  });
  return { requirements };
}

function requirementOf(part: string): SelectorRequirement | undefined {
  const [, setKey, setOperator, items] = /^([^\s!=,()]+)\s+(in|notin)\s*\(([^()]*)\)$/.exec(part) ?? [];
  if (setKey !== undefined && items !== undefined) {
    const values = items.split(",").map((value) => value.trim());
    return { key: setKey, operator: setOperator === "in" ? "In" : "NotIn", values };
  }
  const [, key, operator, value] = /^([^\s!=,()]+)\s*(==|=|!=)\s*([^\s!=,()]*)$/.exec(part) ?? [];
  if (key !== undefined && value !== undefined) {
    return { key, operator: operator === "!=" ? "NotIn" : "In", values: [value] };
  }
  const [, not, name] = /^(!?)\s*([^\s!=,()]+)$/.exec(part) ?? [];
  return name === undefined ? undefined : { key: name, operator: not === "!" ? "DoesNotExist" : "Exists", values: [] };
}

export interface FieldRequirement {
  readonly field: PodField;
  readonly equal: boolean;
  readonly value: string;
}

/** Fields that the API server lets pods be selected by, and where we keep them. */
const POD_FIELDS = {
  "metadata.name": (pod: Pod) => pod.name,
  "metadata.namespace": (pod: Pod) => pod.namespace,
  "spec.nodeName": (pod: Pod) => pod.nodeName,
  "spec.restartPolicy": (pod: Pod) => pod.initFailures?.restartPolicy ?? "",
  "spec.schedulerName": (pod: Pod) => pod.initFailures?.schedulerName ?? "",
  "spec.serviceAccountName": (pod: Pod) => pod.serviceAccount,
  "spec.hostNetwork": (pod: Pod) => String(pod.hostNetwork),
  "status.phase": (pod: Pod) => pod.phase,
  "status.podIP": (pod: Pod) => pod.ips[0] ?? "",
  "status.nominatedNodeName": (pod: Pod) => pod.initFailures?.nominatedNodeName ?? "",
} as const;
export type PodField = keyof typeof POD_FIELDS;

const isPodField = (field: string): field is PodField => Object.hasOwn(POD_FIELDS, field);

/** @throws Error that names what is no requirement, or a field by which pods can't be selected. */
export function parseFieldSelector(text: string): readonly FieldRequirement[] {
  if (text.trim() === "") return [];
  return text.split(",").map((part) => {
    const [, field, operator, value] = /^([\w.]+)(==|=|!=)([^=!,\\]*)$/.exec(part.trim()) ?? [];
    if (field === undefined || value === undefined) {
      throw new Error(`must be a field selector, of which ${shown(part)} is no part`);
    }
    if (!isPodField(field)) {
      throw new Error(`must select by ${Object.keys(POD_FIELDS).join(", ")}, not by ${shown(field)}`);
    }
    return { field, equal: operator !== "!=", value };
  });
}

/** Whether every requirement holds for this pod; those of a pod whose init containers fail are all known. */
export function matchesFields(requirements: readonly FieldRequirement[], pod: Pod): boolean {
  return requirements.every(({ field, equal, value }) => (POD_FIELDS[field](pod) === value) === equal);
}
