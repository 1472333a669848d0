// SPDX-License-Identifier: Apache-2.0
import type { DocumentName, Documents } from "../../core/report/documents.ts";
import type { Query, SessionSource, Source } from "./source.ts";
import { AgentUnreachable } from "./unreachable.ts";

/** The agent, or when it can't be asked, the kernel: for all documents of one command the same. */
export class NodeSource implements SessionSource {
  #kernel: Source | undefined;
  /** Why the agent was not asked. */
  unreachable: AgentUnreachable | undefined;

  constructor(
    private readonly agent: Source,
    /** Loads what reads the kernel, which those who are answered by the agent don't pay for. */
    private readonly openKernel: (note: string) => Promise<Source>,
  ) {}

  async read<Name extends DocumentName>(name: Name, query: Query = {}): Promise<Documents[Name]> {
    if (this.#kernel !== undefined) return this.#kernel.read(name, query);
    try {
      return await this.agent.read(name, query);
    } catch (error) {
      if (!(error instanceof AgentUnreachable)) throw error;
      this.unreachable = error;
      this.#kernel = await this.openKernel(error.message);
      return this.#kernel.read(name, query);
    }
  }
}
