// SPDX-License-Identifier: Apache-2.0
import type { DocumentName, Documents } from "../../core/report/documents.ts";
import type { AgentUnreachable } from "./unreachable.ts";

/**
 * Narrows a document to what is asked for, e.g. `{pod: uid}`. `{meant: reference}` lets a source leave out other pods
 * than a person may mean by it.
 */
export type Query = Readonly<Record<string, string>>;

/** Where documents about a node come from: the agent, the kernel, a bug report. */
export interface Source {
  /**
   * @throws AgentError NEEDS_AGENT for a document that this source can't make, and saying why; AgentUnreachable
   */
  read<Name extends DocumentName>(name: Name, query?: Query): Promise<Documents[Name]>;
}

/** What a command reads. */
export interface SessionSource extends Source {
  /** Why the agent was not asked, though it should have been. */
  readonly unreachable: AgentUnreachable | undefined;
}
