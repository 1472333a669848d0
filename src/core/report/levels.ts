// SPDX-License-Identifier: Apache-2.0
import * as v from "valibot";
import { LOG_LEVELS } from "../config/config.ts";
import { about, HEAD, list } from "./document.ts";

export const levelsSchema = v.object({
  ...HEAD,
  scopes: about(
    "Of the agent's log.",
    list(
      v.object({
        scope: about("Its name.", v.string()),
        level: about("What is logged now.", v.picklist(LOG_LEVELS)),
        configured: about("What the configuration says.", v.picklist(LOG_LEVELS)),
      }),
    ),
  ),
});

/** Body of the request that changes levels; `reset` comes first. */
export const levelsChangeSchema = v.strictObject({
  reset: v.optional(v.boolean(), false),
  levels: v.optional(
    v.pipe(
      v.array(
        v.strictObject({
          scope: v.pipe(v.string(), v.regex(/^[A-Za-z0-9_.-]{1,64}$/)),
          level: v.picklist(LOG_LEVELS),
        }),
      ),
      v.maxLength(256),
    ),
    [],
  ),
});

export type LevelsReport = v.InferOutput<typeof levelsSchema>;
export type LevelsChange = v.InferOutput<typeof levelsChangeSchema>;
