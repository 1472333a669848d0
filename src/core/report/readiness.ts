// SPDX-License-Identifier: Apache-2.0
import * as v from "valibot";
import { HEAD, list } from "./document.ts";

export const readinessSchema = v.object({
  ...HEAD,
  /** What keeps the agent from being ready, a sentence each; as /readyz. */
  missing: list(v.string()),
});

export type ReadinessReport = v.InferOutput<typeof readinessSchema>;
