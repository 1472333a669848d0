// SPDX-License-Identifier: Apache-2.0
// Every document there is, by the name under which the agent serves it, the kernel is read into it, and a
// bug report keeps it.
import * as v from "valibot";
import { AgentError } from "../errors.ts";
import { checksSchema } from "./checks.ts";
import { decisionsSchema } from "./decisions.ts";
import { enginesSchema } from "./engines.ts";
import { inspectSchema } from "./inspect.ts";
import { levelsSchema } from "./levels.ts";
import { linesSchema, metricsSchema } from "./lines.ts";
import { enrollSchema, unenrollSchema } from "./manual.ts";
import { planSchema } from "./plan.ts";
import { podsSchema } from "./pods.ts";
import { proofsSchema, resetsSchema } from "./proofs.ts";
import { readinessSchema } from "./readiness.ts";
import { settingsSchema } from "./settings.ts";
import { statusSchema } from "./status.ts";
import { traceSchema } from "./trace.ts";
import { versionsSchema } from "./versions.ts";

export const DOCUMENTS = {
  status: statusSchema,
  pods: podsSchema,
  inspect: inspectSchema,
  verify: proofsSchema,
  trace: traceSchema,
  "reset-existing": resetsSchema,
  engines: enginesSchema,
  config: settingsSchema,
  log: levelsSchema,
  version: versionsSchema,
  decisions: decisionsSchema,
  check: checksSchema,
  lines: linesSchema,
  metrics: metricsSchema,
  plan: planSchema,
  readiness: readinessSchema,
  enroll: enrollSchema,
  unenroll: unenrollSchema,
};

export type DocumentName = keyof typeof DOCUMENTS;
/** Those that the agent makes: checks are made by the command line, on the node. */
export type AgentDocumentName = Exclude<DocumentName, "check">;
export type Documents = { readonly [Name in DocumentName]: v.InferOutput<(typeof DOCUMENTS)[Name]> };

/**
 * Checks a document that somebody else made.
 * @throws AgentError DOCUMENT_INVALID naming the first thing that is wrong and where
 */
export function parseDocument<Name extends DocumentName>(name: Name, value: unknown): Documents[Name] {
  const result = v.safeParse(DOCUMENTS[name], value);
  // The type of an entry of DOCUMENTS by a generic name is their union; the name tells which.
  if (result.success) return result.output as Documents[Name];
  const [issue] = result.issues;
  const path = v.getDotPath(issue);
  const where = path === null ? "" : `${path}: `;
  throw new AgentError("DOCUMENT_INVALID", `no document ${JSON.stringify(name)}: ${where}${issue.message}`);
}
