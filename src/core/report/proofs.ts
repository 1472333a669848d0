// SPDX-License-Identifier: Apache-2.0
import * as v from "valibot";
import { HEAD, list } from "./document.ts";

export const proofSchema = v.object({
  row: v.string(),
  family: v.picklist([4, 6]),
  result: v.picklist(["proved", "failed", "skipped"]),
  evidence: v.string(),
  milliseconds: v.number(),
});

/** Of one pod. */
export const proofsSchema = v.object({
  ...HEAD,
  uid: v.string(),
  pod: v.string(),
  proofs: list(proofSchema),
  /** Why there is none. */
  problem: v.nullable(v.string()),
});

/** Body of a request about pods, by uid. */
export const podsQuestionSchema = v.strictObject({
  uids: v.pipe(v.array(v.pipe(v.string(), v.minLength(1), v.maxLength(128))), v.minLength(1), v.maxLength(1024)),
});

export const resetsSchema = v.object({
  ...HEAD,
  pods: list(
    v.object({
      uid: v.string(),
      pod: v.string(),
      /** Connections older than the capture that were reset. */
      reset: v.number(),
      problem: v.nullable(v.string()),
    }),
  ),
});

export type ProofReport = v.InferOutput<typeof proofSchema>;
export type ProofsReport = v.InferOutput<typeof proofsSchema>;
export type ResetsReport = v.InferOutput<typeof resetsSchema>;
