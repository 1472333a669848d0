// SPDX-License-Identifier: Apache-2.0
import { messageOf } from "../../core/errors.ts";
import { type FlowLine, LINE_MAX, parseFlowLine } from "../../core/flow/line.ts";
import { type DocumentName, type Documents, parseDocument } from "../../core/report/documents.ts";
import type { AgentClient } from "./agent-client.ts";
import type { Query, Source } from "./source.ts";

/** What the agent says, checked: an answer that is no such document is none. */
export class AgentSource implements Source {
  constructor(private readonly client: AgentClient) {}

  async read<Name extends DocumentName>(name: Name, query: Query = {}): Promise<Documents[Name]> {
    // It has all pods at hand.
    const asked = Object.fromEntries(Object.entries(query).filter(([key]) => key !== "meant"));
    return this.checked(name, await this.client.ask({ name, query: asked }));
  }

  /** Has the agent change something, and reads what it is then. */
  async change<Name extends DocumentName>(name: Name, body: unknown): Promise<Documents[Name]> {
    return this.checked(name, await this.client.ask({ name, body }));
  }

  /** Flows from now on, after up to `last` of before, until `signal` is aborted. */
  async *flows(last: number, signal: AbortSignal): AsyncGenerator<FlowLine> {
    for await (const line of this.client.lines({ name: "monitor", query: { last: `${last}` } }, LINE_MAX, signal)) {
      let flow: FlowLine;
      try {
        flow = parseFlowLine(line);
      } catch (error) {
        throw this.client.broken(`can't be understood: ${messageOf(error)}`, error);
      }
      yield flow;
    }
  }

  private checked<Name extends DocumentName>(name: Name, answer: unknown): Documents[Name] {
    try {
      return parseDocument(name, answer);
    } catch (error) {
      throw this.client.broken(`can't be understood: ${messageOf(error)}`, error);
    }
  }
}
