// SPDX-License-Identifier: Apache-2.0
// What every document about a node has in common. The agent makes documents, or the kernel's state is
// read into them, or a bug report holds them: their readers can't tell, but for `source`.
import * as v from "valibot";

/** Raised when a reader of the one before would misread a document. New fields and documents don't raise it. */
export const SCHEMA_VERSION = 1;

/** Path of a document on the debug socket, with its name appended. */
export const DEBUG_PREFIX = "/v1/";

export const list = <T extends v.GenericSchema>(item: T) => v.pipe(v.array(item), v.readonly());

export const sourceSchema = v.object({
  from: v.picklist(["agent", "kernel", "report"]),
  /** Why not from the agent, or which file; empty for the agent. */
  note: v.string(),
});

export type DocumentSource = v.InferOutput<typeof sourceSchema>;

/** Fields of every document; ages are counted from `takenAt` (RFC 3339). */
export const HEAD = {
  schemaVersion: v.literal(
    SCHEMA_VERSION,
    ({ received }) => `schemaVersion is ${received}, and this program reads ${SCHEMA_VERSION}`,
  ),
  source: sourceSchema,
  takenAt: v.pipe(v.string(), v.isoTimestamp()),
  /** Name of the node, where it is known. */
  node: v.nullable(v.string()),
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
