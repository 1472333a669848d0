// SPDX-License-Identifier: Apache-2.0
import { AgentError } from "../../core/errors.ts";

/** absent: nobody listens; broken: somebody does, and does not answer as the agent does. */
export type Trouble = "absent" | "broken";

/** The agent could not be asked. */
export class AgentUnreachable extends AgentError {
  constructor(
    readonly trouble: Trouble,
    message: string,
    options?: ErrorOptions,
    remedy?: string,
  ) {
    super("AGENT_UNREACHABLE", message, remedy, options);
  }
}
