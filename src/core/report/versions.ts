// SPDX-License-Identifier: Apache-2.0
import * as v from "valibot";
import { about, HEAD } from "./document.ts";

export const versionsSchema = v.object({
  ...HEAD,
  agent: about("Of the agent; null when there is none.", v.nullable(v.string())),
  kernel: about("Release of the kernel.", v.string()),
  nodejs: about("Of the agent, or of this program where there is none.", v.string()),
  libbpf: about("As `nodejs`.", v.string()),
  bpfSchema: about("Layout of the eBPF engine's maps.", v.number()),
  bpfGeneration: about("Names the programs that this version loads; null: not known.", v.nullable(v.string())),
});

/** With that of the program that was asked. */
export const clientVersionsSchema = v.object({
  ...versionsSchema.entries,
  client: about("Of the program that writes this.", v.string()),
});

export type ClientVersionsReport = v.InferOutput<typeof clientVersionsSchema>;
export type VersionsReport = v.InferOutput<typeof versionsSchema>;
