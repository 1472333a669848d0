// SPDX-License-Identifier: Apache-2.0
// The only place that starts programs: no shell, a fixed environment, a deadline, bounded output.
import { type ChildProcess, spawn } from "node:child_process";
import { AgentError, messageOf } from "../core/errors.ts";

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

export type ExecErrorCode = "EXEC_SPAWN" | "EXEC_EXIT" | "EXEC_SIGNAL" | "EXEC_TIMEOUT" | "EXEC_OUTPUT";

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

const ENVIRONMENT = { PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C" };
const DEFAULT_MAX_BYTES = 1 << 20;
const STDERR_TAIL = 4096;
/** The first fd after stdio, where nsenter finds the netns. */
const NETNS_SLOT = 3;

let forks = 0;

/** Programs started since the process began; tests prove "no fork" by its difference. */
export function forkCount(): number {
  return forks;
}

/**
 * Runs a program to its end. With `netns` it runs in that network namespace through nsenter: libuv
 * forks from the thread that calls, so entering a netns here would be the only other way, and no
 * JavaScript may run in a foreign netns. stdin is a socket pair: `-f -` works, `/dev/stdin` doesn't.
 * @throws ExecError
 */
export function run(argv: readonly string[], options: RunOptions): Promise<RunResult> {
  const [argv0 = "", ...args] = argv;
  const inNetns = options.netns !== undefined;
  const file = inNetns ? "nsenter" : argv0;
  const fileArgs = inNetns ? [`--net=/proc/self/fd/${NETNS_SLOT}`, "--", ...argv] : args;
  const input = options.stdin === undefined ? "ignore" : "pipe";

  return new Promise((resolve, reject) => {
    const fail = (code: ExecErrorCode, what: string, exitCode?: number, cause?: unknown) => {
      const tail = stderr.text().trim();
      const message = `${argv.slice(0, 4).join(" ")}: ${what}${tail === "" ? "" : `: ${tail}`}`;
      reject(new ExecError(code, message, argv0, exitCode, tail, cause === undefined ? {} : { cause }));
    };
    const stdout: Buffer[] = [];
    let stdoutBytes = 0;
    const stderr = new Tail(STDERR_TAIL);
    let stopped: { code: ExecErrorCode; what: string } | undefined;

    let child: ChildProcess;
    forks += 1;
    try {
      // detached: own process group, so that a deadline also ends what the program started.
      child = spawn(file, fileArgs, {
        stdio: inNetns ? [input, "pipe", "pipe", options.netns] : [input, "pipe", "pipe"],
        env: ENVIRONMENT,
        cwd: "/",
        detached: true,
      });
    } catch (error) {
      fail("EXEC_SPAWN", messageOf(error), undefined, error);
      return;
    }

    const stop = (code: ExecErrorCode, what: string) => {
      stopped ??= { code, what };
      killGroup(child);
      // Something outside the group may hold the pipes: `close` must come all the same.
      child.stdout?.destroy();
      child.stderr?.destroy();
    };
    const deadline = setTimeout(() => stop("EXEC_TIMEOUT", `no end within ${options.timeoutMs} ms`), options.timeoutMs);
    const limit = options.maxBytes ?? DEFAULT_MAX_BYTES;

    child.stdout?.on("data", (chunk: Buffer) => {
      stdoutBytes += chunk.length;
      if (stdoutBytes > limit) stop("EXEC_OUTPUT", `more than ${limit} bytes of output`);
      else stdout.push(chunk);
    });
    child.stderr?.on("data", (chunk: Buffer) => stderr.push(chunk));
    // EPIPE: the program ended without reading all of it; its exit status tells why.
    child.stdin?.on("error", () => undefined);
    if (options.stdin !== undefined) child.stdin?.end(options.stdin);

    let spawnFailed = false;
    child.on("error", (error) => {
      // Also emitted when a kill fails; only a child without pid was never started.
      if (child.pid !== undefined) return;
      spawnFailed = true;
      clearTimeout(deadline);
      fail("EXEC_SPAWN", messageOf(error), undefined, error);
    });
    child.on("close", (exitCode, signal) => {
      clearTimeout(deadline);
      if (spawnFailed) return;
      if (stopped !== undefined) fail(stopped.code, stopped.what);
      else if (signal !== null) fail("EXEC_SIGNAL", `killed by ${signal}`);
      else if (exitCode !== 0) fail("EXEC_EXIT", `exit status ${exitCode}`, exitCode ?? undefined);
      else resolve({ stdout: Buffer.concat(stdout).toString("utf8"), stderr: stderr.text() });
    });
  });
}

function killGroup(child: ChildProcess): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, "SIGKILL");
  } catch {
    // ESRCH: the group is gone already.
  }
}

/** The last bytes of a stream. */
class Tail {
  #buffer = Buffer.alloc(0);
  constructor(private readonly limit: number) {}

  push(chunk: Buffer): void {
    const joined = Buffer.concat([this.#buffer, chunk]);
    this.#buffer = joined.length > this.limit ? Buffer.from(joined.subarray(joined.length - this.limit)) : joined;
  }

  text(): string {
    return this.#buffer.toString("utf8");
  }
}
