// SPDX-License-Identifier: Apache-2.0
// What an enrolment of one pod would change, step by step. Equal facts give equal text: it is made to be compared.
import * as v from "valibot";
import { HEAD, list } from "./document.ts";

export const planSchema = v.object({
  ...HEAD,
  uid: v.string(),
  pod: v.string(),
  /** Whether it belongs to the mesh, and by which rule. */
  eligibility: v.object({ verdict: v.string(), reason: v.string(), detail: v.string() }),
  /** What the next pass over it would do, a sentence. */
  now: v.string(),
  /** By which it would be captured; null without steps. */
  engine: v.nullable(v.string()),
  /** Every other engine, and why it is not that one. */
  others: list(v.object({ engine: v.string(), reason: v.string() })),
  /** Of an enrolment from nothing; none where there is nothing to enrol. */
  steps: list(
    v.object({
      name: v.string(),
      changes: list(v.object({ what: v.string(), text: v.string() })),
    }),
  ),
  /** What it would wait for, or what of its settings would not be heeded; sentences. */
  notes: list(v.string()),
  /** Why an enrolment would fail; null: nothing is known that speaks against it. */
  problem: v.nullable(v.object({ code: v.string(), message: v.string() })),
});

export type PlanReport = v.InferOutput<typeof planSchema>;
