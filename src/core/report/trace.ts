// SPDX-License-Identifier: Apache-2.0
import * as v from "valibot";
import { HEAD, list } from "./document.ts";

export const hopSchema = v.object({
  /** ms after the trace began. */
  milliseconds: v.number(),
  /** Stable word: decision, connect, answer, onward, end. */
  hop: v.string(),
  result: v.picklist(["ok", "failed", "unseen"]),
  text: v.string(),
});

/** One connection of a pod's, made for the purpose. */
export const traceSchema = v.object({
  ...HEAD,
  uid: v.string(),
  pod: v.string(),
  /** `10.1.9.4:8080`, `[fd00::4]:8080` */
  destination: v.string(),
  hops: list(hopSchema),
  /** Where it went; null: no connection could be made, `problem` says why. */
  verdict: v.nullable(v.picklist(["ztunnel", "passed", "refused", "unanswered"])),
  problem: v.nullable(v.string()),
});

export type HopReport = v.InferOutput<typeof hopSchema>;
export type TraceReport = v.InferOutput<typeof traceSchema>;
