// SPDX-License-Identifier: Apache-2.0
import * as v from "valibot";
import { HEAD, list } from "./document.ts";

/** What `ambient-cni check` found; a bug report holds it, for only the node itself can be tried. */
export const checksSchema = v.object({
  ...HEAD,
  checks: list(
    v.object({
      /** AMB-nnn. */
      code: v.string(),
      category: v.string(),
      /** What is so when all is well. */
      title: v.string(),
      verdict: v.picklist(["ok", "warn", "fail", "skip"]),
      /** What was seen. */
      evidence: v.string(),
      /** null where nothing is to be done. */
      fix: v.nullable(v.string()),
      milliseconds: v.number(),
    }),
  ),
});
