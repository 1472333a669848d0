// SPDX-License-Identifier: Apache-2.0
// What a file in commands/ is made of. Nouns read and never change anything; verbs write.
import type { Command, Option } from "commander";
import { AgentError } from "../core/errors.ts";
import type { CliEnv } from "./env.ts";
import { addGlobals, type Globals, globalsOf } from "./globals.ts";
import { describeExamples } from "./help.ts";
import { coloured, type Paint, plain } from "./render/paint.ts";
import { AgentClient } from "./source/agent-client.ts";
import { AgentSource } from "./source/agent-source.ts";
import { NodeSource } from "./source/node-source.ts";
import type { SessionSource } from "./source/source.ts";

/** The command line under construction: commands are added to it, and tell it how they ended. */
export interface Program {
  readonly root: Command;
  readonly env: CliEnv;
  done(status: number): void;
}

export interface CommandSpec {
  /** With its arguments, in commander's notation: `pods [pod]`. */
  readonly usage: string;
  readonly summary: string;
  /** Three. */
  readonly examples: readonly [string, string, string];
  /** What -o means here, where it is not the form alone. */
  readonly output?: Option;
}

/** One run of a command. */
export interface Session {
  readonly env: CliEnv;
  readonly globals: Globals;
  readonly paint: Paint;
  /** The agent alone, within --timeout or the time that is given here (ms). @throws AgentError USAGE with --from */
  agent(timeoutMs?: number): Promise<AgentSource>;
  /**
   * The report of --from; else a source that asks the agent first, within --timeout or the time that is given here
   * (ms), and remembers whether there is one.
   */
  source(timeoutMs?: number): Promise<SessionSource>;
  /** Writes a document in the form that was asked for; `text` makes the one for people. */
  print(document: unknown, text: (wide: boolean) => string): Promise<void>;
}

/** How long the agent may take for a document, in ms. */
export const AGENT_TIMEOUT_MS = 2000;

/**
 * The same where it makes connections first: a pod that answers none of them takes it some seconds. A little more
 * than the agent gives itself, so that it is the one who says what took so long.
 */
const SLOW_MS: Readonly<Record<string, number>> = { verify: 6000 };

/**
 * Adds a command. `run` gets its options and arguments, and resolves with the exit status; whatever it needs
 * beyond commander it imports itself, so that the other commands don't pay for it.
 */
export function addCommand<Options extends object>(
  program: Program,
  spec: CommandSpec,
  define: (command: Command) => Command,
  run: (session: Session, options: Options, args: readonly string[]) => Promise<number>,
): void {
  const command = define(addGlobals(program.root.command(spec.usage).summary(spec.summary), spec.output));
  command.description(`${spec.summary[0]?.toUpperCase()}${spec.summary.slice(1)}.`);
  describeExamples(command, spec.examples);
  command.action(async () => {
    const session = openSession(program.env, globalsOf(command, program.env));
    program.done(await run(session, command.opts<Options>(), command.args));
  });
}

export function openSession(env: CliEnv, globals: Globals): Session {
  const { from } = globals;
  const agent = async (given = globals.timeoutMs) => {
    if (from !== undefined) usageError("--from reads a report, and this needs the agent itself");
    const slow = given === undefined ? SLOW_MS : {};
    return new AgentSource(new AgentClient(globals.socket, given ?? AGENT_TIMEOUT_MS, slow));
  };
  return {
    env,
    globals,
    paint: globals.color ? coloured : plain,
    agent,
    source: async (timeoutMs) => {
      if (from !== undefined) return (await import("./source/report-source.ts")).openReport(from);
      return new NodeSource(await agent(timeoutMs), async (note) => {
        const { openKernelSource } = await import("./source/kernel/kernel-source.ts");
        return openKernelSource(env, note);
      });
    },
    print: async (document, text) => {
      const { format } = globals;
      if (format === "json") env.stdout.write(`${JSON.stringify(document, null, 2)}\n`);
      else if (format === "yaml") env.stdout.write((await import("./render/yaml.ts")).yamlText(document));
      else env.stdout.write(text(format === "wide"));
    },
  };
}

/** @throws AgentError USAGE */
export function usageError(message: string): never {
  throw new AgentError("USAGE", message);
}
