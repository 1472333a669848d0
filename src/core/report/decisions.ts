// SPDX-License-Identifier: Apache-2.0
import * as v from "valibot";
import { about, HEAD, list } from "./document.ts";

export const decisionSchema = v.object({
  at: about("RFC 3339, of the last of `times` equal ones in a row.", v.string()),
  what: about("What was done or seen: `captured`, `repaired`, `released`, ...", v.string()),
  engine: about("By which, where one had to do with it.", v.nullable(v.string())),
  milliseconds: about("How long it took.", v.nullable(v.number())),
  phases: about("ms of each step.", v.record(v.string(), v.number())),
  reason: about("Stable word or code.", v.string()),
  detail: about("A sentence.", v.string()),
  times: about("Equal ones in a row.", v.number()),
});

export const decisionsSchema = v.object({
  ...HEAD,
  pods: list(v.object({ uid: v.string(), pod: v.string(), decisions: list(decisionSchema) })),
});

export type DecisionReport = v.InferOutput<typeof decisionSchema>;
export type DecisionsReport = v.InferOutput<typeof decisionsSchema>;
