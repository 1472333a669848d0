// SPDX-License-Identifier: Apache-2.0
// What an enrolment of one pod would change, step by step. Equal facts give equal text: it is made to be compared.
import * as v from "valibot";
import { about, eligibilitySchema, HEAD, list } from "./document.ts";

export const planSchema = v.object({
  ...HEAD,
  uid: about("Of the pod; of a netns that would be captured by hand, the word for it.", v.string()),
  pod: about("`namespace/name`, or the same.", v.string()),
  eligibility: about("Whether it belongs to the mesh, and by which rule.", eligibilitySchema),
  now: about("What the next pass over it would do, a sentence.", v.string()),
  engine: about("By which it would be captured; null without steps.", v.nullable(v.string())),
  others: about(
    "Every other engine, and why it is not that one.",
    list(v.object({ engine: about("Its name.", v.string()), reason: about("A sentence.", v.string()) })),
  ),
  steps: about(
    "Of an enrolment from nothing; none where there is nothing to enrol.",
    list(
      v.object({
        name: about("Of the step.", v.string()),
        changes: about(
          "What it would write.",
          list(v.object({ what: about("Where.", v.string()), text: about("What, line by line.", v.string()) })),
        ),
      }),
    ),
  ),
  notes: about("What it would wait for, or what of its settings would not be heeded; sentences.", list(v.string())),
  problem: about(
    "Why an enrolment would fail; null: nothing is known that speaks against it.",
    v.nullable(v.object({ code: about("Stable.", v.string()), message: about("A sentence.", v.string()) })),
  ),
});

export type PlanReport = v.InferOutput<typeof planSchema>;
