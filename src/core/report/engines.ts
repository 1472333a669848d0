// SPDX-License-Identifier: Apache-2.0
import * as v from "valibot";
import { about, HEAD, list } from "./document.ts";

export const enginesSchema = v.object({
  ...HEAD,
  engine: about("What new pods get; null: only the agent chooses.", v.nullable(v.string())),
  engines: about(
    "Self-tests, best engine first.",
    list(
      v.object({
        engine: about("Its name.", v.string()),
        works: about("It has proved that it works on this node.", v.boolean()),
        reason: about("Why it does not; null: it does.", v.nullable(v.string())),
        losses: about("What it can't do here, sentences.", list(v.string())),
        milliseconds: about("How long its self-test took.", v.number()),
        pods: about("Pods that it captures now.", v.number()),
      }),
    ),
  ),
});

export type EnginesReport = v.InferOutput<typeof enginesSchema>;
