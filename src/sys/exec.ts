// SPDX-License-Identifier: Apache-2.0
// The only place that runs programs to their end: no shell, a fixed environment, a deadline, bounded output.
import { constants } from "node:os";
import { AgentError, messageOf } from "../core/errors.ts";
import type { SpawnResult } from "../native/binding.ts";
import { isNativeError } from "../native/fault.ts";
import { native } from "../native/load.ts";

export interface RunOptions {
  readonly stdin?: string | Buffer;
  /** Open netns fd in which the program runs; it stays the caller's. */
  readonly netns?: number;
  /** The program and its children are killed after this many ms. */
  readonly timeoutMs: number;
  /** Bound of stdout in bytes, default 1 MiB. Of stderr only the last 4 KiB are kept. */
  readonly maxBytes?: number;
}

export interface RunResult {
  readonly stdout: string;
  readonly stderr: string;
}

export type ExecErrorCode = "EXEC_SPAWN" | "EXEC_NETNS" | "EXEC_EXIT" | "EXEC_SIGNAL" | "EXEC_TIMEOUT" | "EXEC_OUTPUT";

/** A program that did not end with status 0 in time and within its bounds. */
export class ExecError extends AgentError {
  override readonly name = "ExecError";
  constructor(
    override readonly code: ExecErrorCode,
    message: string,
    readonly argv0: string,
    /** undefined: never started, or ended by a signal. */
    readonly exitCode: number | undefined,
    /** Last 4 KiB. */
    readonly stderr: string,
    options?: ErrorOptions,
  ) {
    super(code, message, undefined, options);
  }
}

const ENVIRONMENT = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"] as const;
const DEFAULT_MAX_BYTES = 1 << 20;
const STDERR_TAIL = 4096;

let forks = 0;

/** Programs started since the process began; tests prove "no fork" by its difference. */
export function forkCount(): number {
  return forks;
}

/**
 * Runs a program to its end, with `netns` in that network namespace. By the addon: Node copies the page
 * tables of the whole process for each child, and can't start one in another netns.
 * @throws ExecError
 */
export async function run(argv: readonly string[], options: RunOptions): Promise<RunResult> {
  const [argv0 = ""] = argv;
  const fail = (code: ExecErrorCode, what: string, stderr: string, exitCode?: number, cause?: unknown) => {
    const tail = stderr.trim();
    const message = `${argv.slice(0, 4).join(" ")}: ${what}${tail === "" ? "" : `: ${tail}`}`;
    return new ExecError(code, message, argv0, exitCode, tail, cause === undefined ? {} : { cause });
  };
  const maxStdout = options.maxBytes ?? DEFAULT_MAX_BYTES;
  let result: SpawnResult;
  forks += 1;
  try {
    result = await native().spawn(options.netns ?? null, {
      argv,
      env: ENVIRONMENT,
      timeoutMs: options.timeoutMs,
      maxStdout,
      maxStderr: STDERR_TAIL,
      ...(options.stdin === undefined ? {} : { stdin: Buffer.from(options.stdin) }),
    });
  } catch (error) {
    const code = isNativeError(error) && error.syscall === "setns" ? "EXEC_NETNS" : "EXEC_SPAWN";
    throw fail(code, messageOf(error), "", undefined, error);
  }
  const { status, signal, stopped, stdout, stderr } = result;
  if (stopped === "timeout") throw fail("EXEC_TIMEOUT", `no end within ${options.timeoutMs} ms`, stderr);
  if (stopped === "output") throw fail("EXEC_OUTPUT", `more than ${maxStdout} bytes of output`, stderr);
  if (signal !== null) throw fail("EXEC_SIGNAL", `killed by ${signalName(signal)}`, stderr);
  if (status !== 0) throw fail("EXEC_EXIT", `exit status ${status}`, stderr, status ?? undefined);
  return { stdout, stderr };
}

function signalName(number: number): string {
  const known = Object.entries(constants.signals).find(([, value]) => value === number);
  return known?.[0] ?? `signal ${number}`;
}
