// SPDX-License-Identifier: Apache-2.0
// Everything about one pod: what Kubernetes wants of it, what is in the kernel, and where the two disagree.
import * as v from "valibot";
import { decisionSchema } from "./decisions.ts";
import { about, eligibilitySchema, HEAD, list } from "./document.ts";
import { podSchema } from "./pods.ts";

export const factSchema = v.object({
  name: about("What it is about: `capture`, `routing`, a listener, ...", v.string()),
  ok: about("null: neither right nor wrong.", v.nullable(v.boolean())),
  text: about("What was seen.", v.string()),
});

export const inspectSchema = v.object({
  ...HEAD,
  pod: about("The pod.", podSchema),
  identity: about(
    "null: only the agent knows.",
    v.nullable(
      v.object({
        serviceAccount: about("By which ztunnel speaks for it.", v.string()),
        labels: about("Of the pod.", v.record(v.string(), v.string())),
        annotations: about("Of the pod, those that are heeded.", v.record(v.string(), v.string())),
        namespaceLabels: about("Of its namespace; null: not known.", v.nullable(v.record(v.string(), v.string()))),
      }),
    ),
  ),
  eligibility: about(
    "Whether it belongs to the mesh, and by which rule; null: only the agent knows.",
    v.nullable(eligibilitySchema),
  ),
  desired: about(
    "What its traffic must be, by setting; empty for a pod that is not of the mesh.",
    v.record(v.string(), v.string()),
  ),
  facts: about("What is in its netns.", list(factSchema)),
  counters: about("Counted by the engine since capture, by verdict or rule.", v.record(v.string(), v.number())),
  existing: about(
    "Open connections that are older than the capture; null where that can't be told.",
    v.nullable(v.number()),
  ),
  decisions: about("What was decided about it, oldest first; none is known without the agent.", list(decisionSchema)),
});

export type FactReport = v.InferOutput<typeof factSchema>;
export type InspectReport = v.InferOutput<typeof inspectSchema>;
