// SPDX-License-Identifier: Apache-2.0
// The DaemonSet that runs the agent, its pod and its node. What is decided from them is final, so, unlike in
// from-kube.ts, an answer that is not as the API describes it is an error and not a guess.
import * as v from "valibot";
import type { AgentPod, DaemonSet } from "../core/daemonset.ts";
import { AgentError } from "../core/errors.ts";
import type { NodeInfo } from "../core/placement.ts";
import { isRecord, type JsonRecord } from "./json.ts";

const TEMPLATE_GENERATION_ANNOTATION = "deprecated.daemonset.template.generation";
const TEMPLATE_GENERATION_LABEL = "pod-template-generation";

/** An absent list or map of the API is left out or null. */
const listOf = <T extends v.GenericSchema>(item: T) => v.nullish(v.array(item), []);
/** An array is a record to valibot. */
const TEXTS = v.nullish(v.pipe(v.custom<JsonRecord>(isRecord, "must be a map"), v.record(v.string(), v.string())), {});
const NAME = v.pipe(v.string(), v.nonEmpty());

const CONTAINERS = v.pipe(v.array(v.object({ name: NAME, image: v.nullish(v.string(), "") })), v.minLength(1));

const REQUIREMENTS = listOf(
  v.object({
    key: NAME,
    operator: v.picklist(["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]),
    values: listOf(v.string()),
  }),
);

const TERM = v.pipe(
  v.object({ matchExpressions: REQUIREMENTS, matchFields: REQUIREMENTS }),
  v.transform(({ matchExpressions, matchFields }) => ({ expressions: matchExpressions, fields: matchFields })),
);

const AFFINITY = v.object({
  nodeAffinity: v.nullish(
    v.object({
      requiredDuringSchedulingIgnoredDuringExecution: v.nullish(v.object({ nodeSelectorTerms: listOf(TERM) })),
    }),
  ),
});

const METADATA = { name: NAME, uid: NAME, deletionTimestamp: v.nullish(v.string()), labels: TEXTS, annotations: TEXTS };

const DAEMON_SET = v.pipe(
  v.object({
    kind: v.literal("DaemonSet"),
    metadata: v.object(METADATA),
    spec: v.object({
      template: v.object({
        spec: v.object({
          containers: CONTAINERS,
          nodeName: v.nullish(v.string(), ""),
          nodeSelector: TEXTS,
          affinity: v.nullish(AFFINITY),
        }),
      }),
    }),
  }),
  v.transform(({ metadata, spec: { template } }): DaemonSet => {
    const { containers, nodeName, nodeSelector, affinity } = template.spec;
    return {
      uid: metadata.uid,
      deleting: (metadata.deletionTimestamp ?? "") !== "",
      templateGeneration: metadata.annotations[TEMPLATE_GENERATION_ANNOTATION],
      containers,
      placement: {
        nodeName: nodeName === "" ? undefined : nodeName,
        nodeSelector,
        required: affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution?.nodeSelectorTerms,
      },
    };
  }),
);

const OWNER = v.object({
  apiVersion: NAME,
  kind: NAME,
  name: NAME,
  controller: v.nullish(v.boolean(), false),
});

const AGENT_POD = v.pipe(
  v.object({
    kind: v.literal("Pod"),
    metadata: v.object({ ...METADATA, ownerReferences: listOf(OWNER) }),
    spec: v.object({
      nodeName: v.nullish(v.string(), ""),
      containers: CONTAINERS,
      terminationGracePeriodSeconds: v.nullish(v.pipe(v.number(), v.integer(), v.minValue(0))),
    }),
  }),
  v.transform(({ metadata, spec }): AgentPod => {
    const owner = metadata.ownerReferences.find(({ controller }) => controller);
    return {
      uid: metadata.uid,
      nodeName: spec.nodeName,
      containers: spec.containers,
      owner:
        owner === undefined
          ? undefined
          : { kind: owner.kind, group: owner.apiVersion.split("/").slice(0, -1).join("/"), name: owner.name },
      templateGeneration: metadata.labels[TEMPLATE_GENERATION_LABEL],
      graceSeconds: spec.terminationGracePeriodSeconds ?? undefined,
    };
  }),
);

const NODE = v.pipe(
  v.object({ kind: v.literal("Node"), metadata: v.object(METADATA) }),
  v.transform(({ metadata: { name, labels } }): NodeInfo => ({ name, labels })),
);

/** @throws AgentError KUBE_MALFORMED that names the field. */
export function daemonSetFromKube(object: unknown): DaemonSet {
  return parsed(DAEMON_SET, object, "DaemonSet");
}

/** @throws AgentError KUBE_MALFORMED that names the field. */
export function agentPodFromKube(object: unknown): AgentPod {
  return parsed(AGENT_POD, object, "agent's pod");
}

/** @throws AgentError KUBE_MALFORMED that names the field. */
export function nodeFromKube(object: unknown): NodeInfo {
  return parsed(NODE, object, "node");
}

function parsed<T extends v.GenericSchema>(schema: T, object: unknown, what: string): v.InferOutput<T> {
  const result = v.safeParse(schema, object, { abortEarly: true });
  if (result.success) return result.output;
  const [issue] = result.issues;
  const where = v.getDotPath(issue) ?? "the document";
  throw new AgentError("KUBE_MALFORMED", `the ${what} is not as it should be: ${where}: ${issue.message}`);
}
