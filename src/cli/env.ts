// SPDX-License-Identifier: Apache-2.0
import type { Readable } from "node:stream";
import { EXIT } from "./exit.ts";

export interface Output {
  write(text: string): void;
  readonly isTTY: boolean;
}

/** All that a command takes from the process, so that tests run commands in their own. */
export interface CliEnv {
  readonly stdout: Output;
  readonly stderr: Output;
  getenv(name: string): string | undefined;
  /** All of it, for the agent's settings. */
  readonly environment: Readonly<Record<string, string | undefined>>;
  now(): Date;
  /** Resolves after `ms`, or at once when the user interrupts. */
  pause(ms: number): Promise<void>;
  readonly stdin: Readable;
  /** For a command that runs until the user interrupts: aborted then, in place of the end of the process. */
  interruption(): AbortSignal;
}

/** For a process that is one command: called once. */
export function endWithItsOutput(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on("error", (error: NodeJS.ErrnoException) => {
      // Whoever read us (head, less) has seen enough.
      if (error.code === "EPIPE") process.exit(EXIT.ok);
      // A full disk: what a script reads then is not what was found.
      if (stream === process.stdout) process.stderr.write(`ambient-cni: can't write the output: ${error.message}\n`);
      process.exit(EXIT.problem);
    });
  }
}

export function processEnv(): CliEnv {
  const output = (stream: NodeJS.WriteStream): Output => ({
    write: (text) => void stream.write(text),
    isTTY: stream.isTTY === true,
  });
  return {
    stdout: output(process.stdout),
    stderr: output(process.stderr),
    getenv: (name) => process.env[name],
    environment: process.env,
    now: () => new Date(),
    pause: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
    // Opened when it is read: a terminal that somebody else reads is left alone.
    get stdin() {
      return process.stdin;
    },
    interruption: () => {
      const controller = new AbortController();
      for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => controller.abort());
      return controller.signal;
    },
  };
}
