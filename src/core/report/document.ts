// SPDX-License-Identifier: Apache-2.0
// What every document about a node has in common. The agent makes documents, or the kernel's state is
// read into them, or a bug report holds them: their readers can't tell, but for `source`.
import * as v from "valibot";

/** Raised when a reader of the one before would misread a document. New fields and documents don't raise it. */
export const SCHEMA_VERSION = 1;

/** Path of a document on the debug socket, with its name appended. */
export const DEBUG_PREFIX = "/v1/";

/** A field with what it means: docs/json.md is made of these. */
export const about = <const T extends v.GenericSchema>(text: string, schema: T) => v.pipe(schema, v.description(text));

export const list = <T extends v.GenericSchema>(item: T) => v.pipe(v.array(item), v.readonly());

export const sourceSchema = v.object({
  from: about(
    "kernel: the agent could not be asked; report: a file of `bugreport`.",
    v.picklist(["agent", "kernel", "report"]),
  ),
  note: about("Why not from the agent, or which file; empty for the agent.", v.string()),
});

export type DocumentSource = v.InferOutput<typeof sourceSchema>;

/** Fields of every document; ages are counted from `takenAt` (RFC 3339). */
export const HEAD = {
  schemaVersion: about(
    "Raised when a reader of the one before would misread the document.",
    v.literal(
      SCHEMA_VERSION,
      ({ received }) => `schemaVersion is ${received}, and this program reads ${SCHEMA_VERSION}`,
    ),
  ),
  source: about("Who says all this.", sourceSchema),
  takenAt: about("RFC 3339; ages are counted from it.", v.pipe(v.string(), v.isoTimestamp())),
  node: about("Name of the node, where it is known.", v.nullable(v.string())),
};

export interface Head {
  readonly schemaVersion: typeof SCHEMA_VERSION;
  readonly source: DocumentSource;
  readonly takenAt: string;
  readonly node: string | null;
}

export function head(source: DocumentSource, node: string | null, takenAt: Date): Head {
  return { schemaVersion: SCHEMA_VERSION, source, takenAt: takenAt.toISOString(), node };
}

/** ok: as it should be; unknown: this source can't tell. */
export const verdictSchema = v.picklist(["ok", "warn", "error", "unknown"]);
export type ReportVerdict = v.InferOutput<typeof verdictSchema>;

/** Whether a pod belongs to the mesh. */
export const eligibilitySchema = v.object({
  verdict: about("`ambient`, `sidecar` or `none`.", v.string()),
  reason: about("Stable word of the rule.", v.string()),
  detail: about("The same as a sentence.", v.string()),
});
