// SPDX-License-Identifier: Apache-2.0
// Which nodes a pod template may run on, as the DaemonSet controller judges it. Taints are left out: a node
// that is tainted while its pods go on running still has its agent's state.

export type NodeOperator = "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt";

export interface NodeRequirement {
  readonly key: string;
  readonly operator: NodeOperator;
  readonly values: readonly string[];
}

/** All of it must hold; an empty term matches nothing. */
export interface NodeTerm {
  readonly expressions: readonly NodeRequirement[];
  /** On fields of the node; there is one, metadata.name. */
  readonly fields: readonly NodeRequirement[];
}

export interface Placement {
  readonly nodeName: string | undefined;
  readonly nodeSelector: Readonly<Record<string, string>>;
  /** requiredDuringSchedulingIgnoredDuringExecution: one of them must match. Undefined: not asked for. */
  readonly required: readonly NodeTerm[] | undefined;
}

export interface NodeInfo {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
}

/** Why the node is none of those that the template may run on; undefined when it is one. */
export function misplacement({ nodeName, nodeSelector, required }: Placement, node: NodeInfo): string | undefined {
  if (nodeName !== undefined && nodeName !== node.name) return `nodeName is ${nodeName}`;
  for (const [key, value] of Object.entries(nodeSelector)) {
    if (labelOf(node.labels, key) !== value) return `nodeSelector asks for ${key}=${value}`;
  }
  if (required === undefined || required.some((term) => termMatches(term, node))) return undefined;
  return "no term of the required nodeAffinity matches";
}

function termMatches({ expressions, fields }: NodeTerm, { name, labels }: NodeInfo): boolean {
  if (expressions.length + fields.length === 0) return false;
  return (
    expressions.every((requirement) => holds(requirement, labels)) &&
    fields.every((requirement) => holds(requirement, { "metadata.name": name }))
  );
}

function holds({ key, operator, values }: NodeRequirement, labels: NodeInfo["labels"]): boolean {
  const value = labelOf(labels, key);
  switch (operator) {
    case "In":
      return value !== undefined && values.includes(value);
    case "NotIn":
      return value === undefined || !values.includes(value);
    case "Exists":
      return value !== undefined;
    case "DoesNotExist":
      return value === undefined;
    case "Gt":
      return compared(value, values, (a, b) => a > b);
    case "Lt":
      return compared(value, values, (a, b) => a < b);
  }
}

/** As Kubernetes: what is no integer compares as nothing. */
function compared(
  value: string | undefined,
  [bound, ...more]: readonly string[],
  by: (a: bigint, b: bigint) => boolean,
): boolean {
  if (value === undefined || bound === undefined || more.length > 0) return false;
  if (!INTEGER.test(value) || !INTEGER.test(bound)) return false;
  return by(BigInt(value), BigInt(bound));
}

const INTEGER = /^-?\d{1,19}$/;

function labelOf(labels: NodeInfo["labels"], key: string): string | undefined {
  return Object.hasOwn(labels, key) ? labels[key] : undefined;
}
