// SPDX-License-Identifier: Apache-2.0
import * as v from "valibot";
import { HEAD, list } from "./document.ts";

/** The last lines of the agent's log, as they were written; oldest first. */
export const linesSchema = v.object({ ...HEAD, lines: list(v.string()) });

/** The agent's metrics as Prometheus reads them. */
export const metricsSchema = v.object({ ...HEAD, text: v.string() });

export type LinesReport = v.InferOutput<typeof linesSchema>;
export type MetricsReport = v.InferOutput<typeof metricsSchema>;
