// SPDX-License-Identifier: Apache-2.0
import * as v from "valibot";
import { about, HEAD, list } from "./document.ts";

export const linesSchema = v.object({
  ...HEAD,
  lines: about("The last ones of the agent's log, as they were written; oldest first.", list(v.string())),
});

/** The agent's metrics as Prometheus reads them. */
export const metricsSchema = v.object({ ...HEAD, text: v.string() });

export type LinesReport = v.InferOutput<typeof linesSchema>;
export type MetricsReport = v.InferOutput<typeof metricsSchema>;
