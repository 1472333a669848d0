// SPDX-License-Identifier: Apache-2.0
import { AgentError } from "../core/errors.ts";
import { isRecord, recordOf, textOf } from "./json.ts";

/** etcd refuses objects above 1.5 MiB; JSON and managedFields stay well below this. */
export const MAX_LINE = 8 * 1024 * 1024;

export type WatchEventType = "ADDED" | "MODIFIED" | "DELETED" | "BOOKMARK" | "ERROR";

export interface WatchEvent {
  readonly type: WatchEventType;
  readonly object: unknown;
  /** `metadata.resourceVersion`; empty in an ERROR. */
  readonly resourceVersion: string;
}

const TYPES: ReadonlySet<string> = new Set(["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]);
const NEWLINE = 0x0a;

/**
 * Cuts a stream into lines. Lines are decoded whole, so a chunk may end inside a character.
 * @throws AgentError KUBE_MALFORMED when a line is longer than `limit` bytes.
 */
export async function* readLines(chunks: AsyncIterable<Buffer>, limit: number = MAX_LINE): AsyncGenerator<string> {
  let parts: Buffer[] = [];
  let size = 0;
  for await (const chunk of chunks) {
    let start = 0;
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, start)) {
      parts.push(chunk.subarray(start, end));
      size += end - start;
      if (size > limit) throw tooLong(limit);
      const line = Buffer.concat(parts, size).toString("utf8");
      parts = [];
      size = 0;
      start = end + 1;
      if (line.trim() !== "") yield line;
    }
    parts.push(chunk.subarray(start));
    size += chunk.length - start;
    if (size > limit) throw tooLong(limit);
  }
  if (size > 0) throw new AgentError("KUBE_UNREACHABLE", "the watch ended in the middle of an event");
}

/** @throws AgentError KUBE_MALFORMED that shows the beginning of the line. */
export function parseWatchEvent(line: string): WatchEvent {
  let event: unknown;
  try {
    event = JSON.parse(line);
  } catch (error) {
    throw malformed(line, error);
  }
  const type = isRecord(event) ? textOf(event.type) : "";
  if (!isRecord(event) || !TYPES.has(type) || !isRecord(event.object)) throw malformed(line, undefined);
  const resourceVersion = textOf(recordOf(event.object.metadata).resourceVersion);
  if (type !== "ERROR" && resourceVersion === "") throw malformed(line, undefined);
  return { type: type as WatchEventType, object: event.object, resourceVersion };
}

function malformed(line: string, cause: unknown): AgentError {
  return new AgentError("KUBE_MALFORMED", `not a watch event: ${JSON.stringify(line.slice(0, 80))}`, undefined, {
    cause,
  });
}

function tooLong(limit: number): AgentError {
  return new AgentError("KUBE_MALFORMED", `a watch event has more than ${limit} bytes`);
}
