// SPDX-License-Identifier: Apache-2.0
import type { NetworkPolicy, PolicyDirection, PolicyPort, PolicyRule } from "../core/network-policy.ts";
import type { LabelSelector, SelectorOperator, SelectorRequirement } from "../core/selector.ts";
import { isRecord, listOf, recordOf, textOf } from "./json.ts";

const OPERATORS: readonly SelectorOperator[] = ["In", "NotIn", "Exists", "DoesNotExist"];

/** undefined for what is no policy, or none that could be stored: the API server checks them. */
export function policyFromKube(object: unknown): NetworkPolicy | undefined {
  const { metadata, spec } = recordOf(object);
  const { namespace, name } = recordOf(metadata);
  if (textOf(namespace) === "" || textOf(name) === "" || !isRecord(spec)) return undefined;
  const types = listOf(spec.policyTypes);
  // As the API defaults it: ingress always, egress where there are rules for it.
  const isolates = (type: string, direction: PolicyDirection) =>
    types.length > 0 ? types.includes(type) : direction === "ingress" || listOf(spec.egress).length > 0;
  return {
    namespace: textOf(namespace),
    name: textOf(name),
    podSelector: selectorFrom(spec.podSelector),
    rules: {
      ingress: isolates("Ingress", "ingress") ? listOf(spec.ingress).map(ruleFrom) : undefined,
      egress: isolates("Egress", "egress") ? listOf(spec.egress).map(ruleFrom) : undefined,
    },
  };
}

function ruleFrom(rule: unknown): PolicyRule {
  return { ports: listOf(recordOf(rule).ports).map(portFrom) };
}

function portFrom(entry: unknown): PolicyPort {
  const { protocol, port, endPort } = recordOf(entry);
  return {
    protocol: textOf(protocol) === "" ? "TCP" : textOf(protocol),
    port: typeof port === "number" || typeof port === "string" ? port : undefined,
    endPort: typeof endPort === "number" ? endPort : undefined,
  };
}

function selectorFrom(selector: unknown): LabelSelector {
  const { matchLabels, matchExpressions } = recordOf(selector);
  return {
    requirements: [
      ...Object.entries(recordOf(matchLabels)).map(
        ([key, value]): SelectorRequirement => ({ key, operator: "In", values: [textOf(value)] }),
      ),
      ...listOf(matchExpressions).map((expression): SelectorRequirement => {
        const { key, operator, values } = recordOf(expression);
        const known = OPERATORS.find((one) => one === operator);
        // An operator of a later API: the pod is taken for selected by it, so that a gap is not missed.
        return known === undefined
          ? { key: textOf(key), operator: "NotIn", values: [] }
          : { key: textOf(key), operator: known, values: listOf(values).map(textOf) };
      }),
    ],
  };
}
