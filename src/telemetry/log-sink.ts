// SPDX-License-Identifier: Apache-2.0
import { destination } from "pino";
import { AgentError, messageOf } from "../core/errors.ts";
import { ownPipe } from "../sys/own-pipe.ts";

/** Where whole lines go. */
export interface LogSink {
  write(line: string): void;
  /** Synchronously writes what is buffered; gives up where nobody reads. */
  flush(): void;
}

/** Bytes that may wait for a reader that does not read; lines beyond are dropped, the agent goes on. */
const MAX_BUFFERED = 4 << 20;
/** What a reader that does not read may cost the end of the process, in ms. */
const FLUSH_MS = 300;

/**
 * Opens --log_target: `stdout`, `stderr` or absolute paths. Writing never blocks and never fails: a log
 * that nobody reads must not stop captures.
 * @throws AgentError LOG_TARGET naming a file that cannot be opened
 */
export function openTargets(targets: readonly string[]): LogSink {
  let flushUntil = Number.POSITIVE_INFINITY;
  const streams = targets.map((target) => {
    const dest = target === "stdout" ? ownPipe(1) : target === "stderr" ? ownPipe(2) : target;
    try {
      const stream = destination({
        dest,
        // A file is opened synchronously, so that a wrong path is an error now and not a line lost later.
        sync: typeof dest === "string",
        maxLength: MAX_BUFFERED,
        append: true,
        retryEAGAIN: () => performance.now() < flushUntil,
      });
      stream.on("error", () => undefined);
      return stream;
    } catch (cause) {
      throw new AgentError("LOG_TARGET", `cannot write the log to ${target}: ${messageOf(cause)}`, undefined, {
        cause,
      });
    }
  });
  return {
    write: (line) => {
      for (const stream of streams) stream.write(line);
    },
    flush: () => {
      flushUntil = performance.now() + FLUSH_MS;
      for (const stream of streams) {
        try {
          stream.flushSync();
        } catch {
          // A closed pipe, or one that nobody reads: pino would try once more when the process ends.
          stream.destroy();
        }
      }
      flushUntil = Number.POSITIVE_INFINITY;
    },
  };
}
