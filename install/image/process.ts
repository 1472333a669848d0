// SPDX-License-Identifier: Apache-2.0
import { spawn } from "node:child_process";

export interface ProgramOptions {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Open files in place of nothing to read, and of the output that is returned. */
  readonly stdin?: number;
  readonly stdout?: number;
}

const TAIL_LINES = 40;

/**
 * Runs a program to its end and returns what it wrote to stdout.
 * @throws Error with the last lines that it wrote, when it fails or can't be started.
 */
export async function runProgram(argv: readonly string[], options: ProgramOptions = {}): Promise<string> {
  const [file = "", ...rest] = argv;
  const child = spawn(file, rest, {
    cwd: options.cwd,
    // One language, so that what we read is what we expect.
    env: { ...process.env, LC_ALL: "C.UTF-8", ...options.env },
    stdio: [options.stdin ?? "ignore", options.stdout ?? "pipe", "pipe"],
  });
  const stdout: Buffer[] = [];
  const all: Buffer[] = [];
  child.stdout?.on("data", (chunk: Buffer) => {
    stdout.push(chunk);
    all.push(chunk);
  });
  child.stderr?.on("data", (chunk: Buffer) => all.push(chunk));
  const status = await new Promise<number | string>((resolve, reject) => {
    child.once("error", (error) => reject(new Error(`${file} can't be started: ${error.message}`, { cause: error })));
    child.once("close", (code, signal) => resolve(code ?? signal ?? "?"));
  });
  if (status !== 0) {
    const tail = Buffer.concat(all).toString().trimEnd().split("\n").slice(-TAIL_LINES).join("\n");
    throw new Error(`${argv.slice(0, 6).join(" ")} failed (${status}):\n${tail}`);
  }
  return Buffer.concat(stdout).toString();
}
