// SPDX-License-Identifier: Apache-2.0

/** A line that is typed in the playground, and what must come of it. */
export interface Typed {
  /** As a page shows it. */
  readonly line: string;
  /** What is typed in its place: a page's POD is a pod of the playground. */
  readonly as?: string;
  /** On standard output, or in the file that it is sent to. */
  readonly says: readonly RegExp[];
  /** On standard error; nothing by default. */
  readonly notes?: RegExp;
}
