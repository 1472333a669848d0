// SPDX-License-Identifier: Apache-2.0
import * as v from "valibot";
import { about, HEAD, list } from "./document.ts";

export const hopSchema = v.object({
  milliseconds: about("ms after the trace began.", v.number()),
  hop: about("Stable word: decision, connect, answer, onward, end.", v.string()),
  result: about("unseen: nobody could look.", v.picklist(["ok", "failed", "unseen"])),
  text: about("What was seen.", v.string()),
});

/** One connection of a pod's, made for the purpose. */
export const traceSchema = v.object({
  ...HEAD,
  uid: about("Of the pod.", v.string()),
  pod: about("`namespace/name`.", v.string()),
  destination: about("As `10.1.9.4:8080` or `[fd00::4]:8080`.", v.string()),
  hops: about("In the order of their times.", list(hopSchema)),
  verdict: about(
    "Where it went; null: no connection could be made, `problem` says why.",
    v.nullable(v.picklist(["ztunnel", "passed", "refused", "unanswered"])),
  ),
  problem: about("Why no connection could be made; null: one was.", v.nullable(v.string())),
});

export type HopReport = v.InferOutput<typeof hopSchema>;
export type TraceReport = v.InferOutput<typeof traceSchema>;
