// SPDX-License-Identifier: Apache-2.0
import { Readable } from "node:stream";
import { runCommand } from "../../src/cli/commands.ts";
import type { CliEnv } from "../../src/cli/env.ts";
import type { DocumentName, Documents } from "../../src/core/report/documents.ts";
import { DebugServer } from "../../src/telemetry/debug-server.ts";
import { silent } from "../fakes/parts.ts";
import { ScratchDir } from "./scratch-dir.ts";

export interface InProcess {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface InProcessOptions {
  readonly environment?: Readonly<Record<string, string>>;
  readonly isTTY?: boolean;
  /** What happens while a command waits. */
  readonly pause?: (ms: number) => Promise<void>;
  readonly stdin?: string;
  /** The user's. */
  readonly interruption?: AbortSignal;
  /** Hears what a command writes, while it runs. */
  readonly wrote?: (text: string) => void;
}

/** Runs a command line in this process, with the clock at noon of the first day of 2026. */
export async function cli(argv: readonly string[], options: InProcessOptions = {}): Promise<InProcess> {
  const { environment = {}, isTTY = false, pause = async () => undefined, wrote = () => undefined } = options;
  const { stdin = "", interruption = new AbortController().signal } = options;
  const written = { stdout: "", stderr: "" };
  const output = (name: keyof typeof written) => ({
    isTTY,
    write: (text: string) => {
      written[name] += text;
      wrote(text);
    },
  });
  let now = Date.parse("2026-01-01T12:00:00Z");
  const env: CliEnv = {
    stdout: output("stdout"),
    stderr: output("stderr"),
    environment,
    getenv: (name) => environment[name],
    now: () => new Date(now),
    pause: async (ms) => {
      now += ms;
      await pause(ms);
    },
    stdin: Readable.from([Buffer.from(stdin)]),
    interruption: () => interruption,
  };
  const status = await runCommand(argv, env);
  return { status, ...written };
}

/** An agent's debug socket that serves these documents, for as long as `body` runs; they may change meanwhile. */
export async function withAgent(
  documents: { [Name in DocumentName]?: Documents[Name] },
  body: (socket: string) => Promise<void>,
): Promise<void> {
  using scratch = new ScratchDir();
  const path = scratch.file("agent.sock");
  const names = Object.keys(documents) as DocumentName[];
  const routes = Object.fromEntries(
    names.map((name) => [name, { get: () => documents[name], post: () => documents[name] }]),
  );
  const server = new DebugServer({ path, routes, logger: silent });
  await server.listen();
  try {
    await body(path);
  } finally {
    await server.stop();
  }
}
