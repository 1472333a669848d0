// SPDX-License-Identifier: Apache-2.0
import { createReadStream } from "node:fs";
import { addAbortSignal } from "node:stream";
import { messageOf } from "../../core/errors.ts";
import { type FlowLine, LINE_MAX, parseFlowLine } from "../../core/flow/line.ts";
import type { CliEnv } from "../env.ts";
import { linesOf } from "../source/lines.ts";

/** Hears of a line that is none, with its number from 1. */
export type BrokenLine = (number: number, why: string) => void;

/**
 * Lines of an earlier stream, from a file or (`-`) the standard input; ends when `signal` is aborted.
 * @throws AgentError LINE_TOO_LONG; errors of the file system
 */
export function readRecording(
  from: string,
  { stdin }: Pick<CliEnv, "stdin">,
  signal: AbortSignal,
): (broken: BrokenLine) => AsyncGenerator<FlowLine> {
  return async function* (broken) {
    const stream = addAbortSignal(signal, from === "-" ? stdin : createReadStream(from));
    let number = 0;
    try {
      for await (const line of linesOf(stream, LINE_MAX)) {
        if (signal.aborted) return;
        number += 1;
        let flow: FlowLine;
        try {
          flow = parseFlowLine(line);
        } catch (error) {
          broken(number, messageOf(error));
          continue;
        }
        yield flow;
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  };
}
