// SPDX-License-Identifier: Apache-2.0
import * as v from "valibot";
import { HEAD, list } from "./document.ts";

export const decisionSchema = v.object({
  /** RFC 3339, of the last of `times` equal ones in a row. */
  at: v.string(),
  what: v.string(),
  engine: v.nullable(v.string()),
  milliseconds: v.nullable(v.number()),
  /** ms of each step. */
  phases: v.record(v.string(), v.number()),
  /** Stable word or code. */
  reason: v.string(),
  detail: v.string(),
  times: v.number(),
});

export const decisionsSchema = v.object({
  ...HEAD,
  pods: list(v.object({ uid: v.string(), pod: v.string(), decisions: list(decisionSchema) })),
});

export type DecisionReport = v.InferOutput<typeof decisionSchema>;
export type DecisionsReport = v.InferOutput<typeof decisionsSchema>;
