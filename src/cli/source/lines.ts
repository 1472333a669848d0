// SPDX-License-Identifier: Apache-2.0
import { StringDecoder } from "node:string_decoder";
import { AgentError } from "../../core/errors.ts";

/**
 * Lines of a stream of bytes, without their ends; the last one too if nothing ends it. Empty ones are left out.
 * @throws AgentError LINE_TOO_LONG after `max` characters without an end; what the stream throws
 */
export async function* linesOf(stream: AsyncIterable<Buffer | string>, max: number): AsyncGenerator<string> {
  const decoder = new StringDecoder("utf8");
  let rest = "";
  for await (const chunk of stream) {
    const lines = (rest + (typeof chunk === "string" ? chunk : decoder.write(chunk))).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) if (line !== "") yield bounded(line, max);
    bounded(rest, max);
  }
  rest += decoder.end();
  if (rest !== "") yield bounded(rest, max);
}

function bounded(line: string, max: number): string {
  if (line.length <= max) return line;
  throw new AgentError("LINE_TOO_LONG", `a line of more than ${max} characters`);
}
