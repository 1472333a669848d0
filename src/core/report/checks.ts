// SPDX-License-Identifier: Apache-2.0
import * as v from "valibot";
import { about, HEAD, list } from "./document.ts";

/** What `ambient-cni check` found; a bug report holds it, for only the node itself can be tried. */
export const checksSchema = v.object({
  ...HEAD,
  checks: about(
    "In the order in which they were made.",
    list(
      v.object({
        code: about("AMB-nnn, in [the list of checks](checks.md).", v.string()),
        category: about("kernel, cni, ztunnel, pods or agent.", v.string()),
        title: about("What is so when all is well.", v.string()),
        verdict: about(
          "skip: not known, because it can't be seen from here.",
          v.picklist(["ok", "warn", "fail", "skip"]),
        ),
        evidence: about("What was seen.", v.string()),
        fix: about("What to do; null where nothing is to be done.", v.nullable(v.string())),
        milliseconds: about("How long it took.", v.number()),
      }),
    ),
  ),
});
