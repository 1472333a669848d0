// SPDX-License-Identifier: Apache-2.0
import * as v from "valibot";
import { about, HEAD, list } from "./document.ts";

export const proofSchema = v.object({
  row: about("What was tried.", v.string()),
  family: about("Of IP.", v.picklist([4, 6])),
  result: about(
    "skipped: it could not be tried, or does not apply; `evidence` says why.",
    v.picklist(["proved", "failed", "skipped"]),
  ),
  evidence: about("What was seen.", v.string()),
  milliseconds: about("How long it took.", v.number()),
});

const PROVED = {
  uid: about("Of the pod.", v.string()),
  pod: about("`namespace/name`, or what is known.", v.string()),
  proofs: about("By connections that were made in the pod.", list(proofSchema)),
  problem: about("Why there is none; null where there are.", v.nullable(v.string())),
};

/** Of one pod. */
export const proofsSchema = v.object({ ...HEAD, ...PROVED });

/** What `verify` says of all pods that it was asked about. */
export const verificationSchema = v.object({
  ...HEAD,
  pods: about("Those that were asked about.", list(v.object(PROVED))),
});

/** Body of a request about pods, by uid. */
export const podsQuestionSchema = v.strictObject({
  uids: v.pipe(v.array(v.pipe(v.string(), v.minLength(1), v.maxLength(128))), v.minLength(1), v.maxLength(1024)),
});

export const resetsSchema = v.object({
  ...HEAD,
  pods: about(
    "Those that were asked about.",
    list(
      v.object({
        uid: about("Of the pod.", v.string()),
        pod: about("`namespace/name`, or what is known.", v.string()),
        reset: about("Connections older than the capture that were reset.", v.number()),
        problem: about("Why none could be reset; null: nothing went wrong.", v.nullable(v.string())),
      }),
    ),
  ),
});

export type VerificationReport = v.InferOutput<typeof verificationSchema>;
export type ProofReport = v.InferOutput<typeof proofSchema>;
export type ProofsReport = v.InferOutput<typeof proofsSchema>;
export type ResetsReport = v.InferOutput<typeof resetsSchema>;
