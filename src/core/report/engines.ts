// SPDX-License-Identifier: Apache-2.0
import * as v from "valibot";
import { HEAD, list } from "./document.ts";

export const enginesSchema = v.object({
  ...HEAD,
  /** What new pods get; null: only the agent chooses. */
  engine: v.nullable(v.string()),
  /** Self-tests, best engine first. */
  engines: list(
    v.object({
      engine: v.string(),
      works: v.boolean(),
      /** Why not. */
      reason: v.nullable(v.string()),
      losses: list(v.string()),
      /** Of its self-test. */
      milliseconds: v.number(),
      /** Pods that it captures now. */
      pods: v.number(),
    }),
  ),
});

export type EnginesReport = v.InferOutput<typeof enginesSchema>;
