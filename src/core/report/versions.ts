// SPDX-License-Identifier: Apache-2.0
import * as v from "valibot";
import { HEAD } from "./document.ts";

export const versionsSchema = v.object({
  ...HEAD,
  /** Of the agent; null when there is none. */
  agent: v.nullable(v.string()),
  kernel: v.string(),
  /** Of the agent, or of this program where there is none. */
  nodejs: v.string(),
  libbpf: v.string(),
  /** Layout of the maps, and name of the programs. */
  bpfSchema: v.number(),
  bpfGeneration: v.nullable(v.string()),
});

export type VersionsReport = v.InferOutput<typeof versionsSchema>;
