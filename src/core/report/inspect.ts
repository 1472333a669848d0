// SPDX-License-Identifier: Apache-2.0
// Everything about one pod: what Kubernetes wants of it, what is in the kernel, and where the two disagree.
import * as v from "valibot";
import { decisionSchema } from "./decisions.ts";
import { HEAD, list } from "./document.ts";
import { podSchema } from "./pods.ts";

export const factSchema = v.object({
  /** What it is about: `capture`, `routing`, `listener 15001`, ... */
  name: v.string(),
  /** null: neither right nor wrong. */
  ok: v.nullable(v.boolean()),
  text: v.string(),
});

export const inspectSchema = v.object({
  ...HEAD,
  pod: podSchema,
  /** null: only the agent knows. */
  identity: v.nullable(
    v.object({
      serviceAccount: v.string(),
      labels: v.record(v.string(), v.string()),
      annotations: v.record(v.string(), v.string()),
      namespaceLabels: v.nullable(v.record(v.string(), v.string())),
    }),
  ),
  /** Whether it belongs to the mesh, and by which rule; null: only the agent knows. */
  eligibility: v.nullable(v.object({ verdict: v.string(), reason: v.string(), detail: v.string() })),
  /** What its traffic must be, by setting; empty for a pod that is not of the mesh. */
  desired: v.record(v.string(), v.string()),
  /** What is in its netns. */
  facts: list(factSchema),
  /** Counted by the engine since capture, by verdict or rule. */
  counters: v.record(v.string(), v.number()),
  /** Open connections that are older than the capture; null where that can't be told. */
  existing: v.nullable(v.number()),
  /** What was decided about it, oldest first; none is known without the agent. */
  decisions: list(decisionSchema),
});

export type FactReport = v.InferOutput<typeof factSchema>;
export type InspectReport = v.InferOutput<typeof inspectSchema>;
