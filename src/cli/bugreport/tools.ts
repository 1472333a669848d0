// SPDX-License-Identifier: Apache-2.0
import { AgentError } from "../../core/errors.ts";
import { ExecError, run } from "../../sys/exec.ts";

/** Of one program, in ms and bytes. */
const TIMEOUT_MS = 1000;
const MAX_BYTES = 1 << 20;

export type Command = readonly string[];

/** Programs of the node or the image; one that is missing is asked once. */
export class Tools {
  readonly missing = new Set<string>();

  /** What they wrote, each below its command line; undefined when the program is missing. */
  async transcript(commands: readonly Command[], netns?: number): Promise<string | undefined> {
    const parts: string[] = [];
    for (const command of commands) {
      const stdout = await this.output(command, netns);
      if (stdout !== undefined) parts.push(`$ ${command.join(" ")}\n${stdout}`);
    }
    return parts.length === 0 ? undefined : parts.join("");
  }

  /** @throws ExecError */
  async output(command: Command, netns?: number): Promise<string | undefined> {
    const [name = ""] = command;
    if (this.missing.has(name)) return undefined;
    try {
      return (
        await run(command, { ...(netns === undefined ? {} : { netns }), timeoutMs: TIMEOUT_MS, maxBytes: MAX_BYTES })
      ).stdout;
    } catch (error) {
      if (!(error instanceof ExecError) || error.code !== "EXEC_SPAWN") throw error;
      if (!error.message.includes("ENOENT")) throw new AgentError(error.code, error.message);
      this.missing.add(name);
      return undefined;
    }
  }
}
