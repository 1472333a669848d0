// SPDX-License-Identifier: Apache-2.0
// What lies where in a bug report, for who writes one and who reads one.
import type { DocumentName } from "../../core/report/documents.ts";

/** Everything is below it: whoever unpacks an archive gets one folder. */
export const TOP = "bugreport";

/** Whole, compressed or not; a report of 200 pods has some 10 MiB. */
export const REPORT_MAX_BYTES = 64 << 20;
/** Of one file in it. */
export const ITEM_MAX_BYTES = 16 << 20;

export const ERRORS = "errors.txt";

/** Path of a document; of those about one pod, by its uid. */
export function documentPath(name: DocumentName, uid = ""): string {
  return uid === "" ? `documents/${name}.json` : `documents/${name}/${uid}.json`;
}

/** Uids come from the API or from cgroups: only these may be the name of a file. */
export function isPlainName(name: string): boolean {
  return /^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}$/.test(name);
}
