// SPDX-License-Identifier: Apache-2.0
import { request } from "node:http";

export interface Answer {
  readonly status: number;
  readonly headers: NodeJS.Dict<string | string[]>;
  // biome-ignore lint/suspicious/noExplicitAny: what a server answers is looked at by matchers
  readonly body: any;
}

/** One HTTP request as a client of the API would write it. */
export function call(
  url: string,
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const text = body === undefined || Buffer.isBuffer(body) || typeof body === "string" ? body : JSON.stringify(body);
    const outgoing = request(
      new URL(path, url),
      {
        method,
        agent: false,
        headers: {
          "content-type": "application/json",
          // Node would send the body of a DELETE without saying how long it is.
          "content-length": text === undefined ? 0 : Buffer.byteLength(text),
          ...headers,
        },
      },
      (incoming) => {
        const chunks: Buffer[] = [];
        incoming.on("data", (chunk: Buffer) => chunks.push(chunk));
        incoming.on("error", reject);
        incoming.on("end", () => {
          const received = Buffer.concat(chunks).toString();
          const json = incoming.headers["content-type"] === "application/json";
          resolve({
            status: incoming.statusCode ?? 0,
            headers: incoming.headers,
            body: json ? parseLines(received) : received,
          });
        });
      },
    );
    outgoing.on("error", reject);
    outgoing.end(text);
  });
}

/** One JSON document, or the list of a watch's events. */
function parseLines(text: string): unknown {
  const lines = text.split("\n").filter((line) => line !== "");
  const documents: unknown[] = lines.map((line) => JSON.parse(line));
  return documents.length === 1 && !text.endsWith("\n") ? documents[0] : documents;
}
