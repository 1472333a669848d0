// SPDX-License-Identifier: Apache-2.0
import { request } from "node:http";
import { connect } from "node:net";

export interface HttpAnswer {
  readonly status: number;
  readonly body: string;
}

/** One HTTP request over a unix socket. */
export function send(
  socketPath: string,
  method: string,
  path: string,
  body: string | Buffer = "",
  signal?: AbortSignal,
): Promise<HttpAnswer> {
  return new Promise((resolve, reject) => {
    const outgoing = request({ socketPath, method, path, ...(signal === undefined ? {} : { signal }) }, (incoming) => {
      const chunks: Buffer[] = [];
      incoming.on("data", (chunk: Buffer) => chunks.push(chunk));
      incoming.on("error", reject);
      incoming.on("end", () => {
        resolve({ status: incoming.statusCode ?? 0, body: Buffer.concat(chunks).toString("utf8") });
      });
    });
    outgoing.on("error", reject);
    outgoing.end(body);
  });
}

/** Writes raw bytes and returns all that comes back until the server closes. */
export function sendRaw(socketPath: string, bytes: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(socketPath);
    let received = "";
    socket.setEncoding("utf8");
    socket.on("data", (chunk: string) => {
      received += chunk;
    });
    socket.on("error", reject);
    socket.on("close", () => resolve(received));
    socket.write(bytes);
  });
}
