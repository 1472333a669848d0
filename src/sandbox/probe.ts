// SPDX-License-Identifier: Apache-2.0
import { request } from "node:http";
import { Socket } from "node:net";
import { native } from "../native/load.ts";
import { openNetns } from "../native/netns.ts";

export interface ProbeAnswer {
  readonly status: number;
  readonly body: string;
  readonly milliseconds: number;
}

/**
 * One HTTP GET on a socket made inside a network namespace: the way kubelet probes a pod from the
 * node. @throws NativeError (ECONNREFUSED, ETIMEDOUT) or an error of HTTP
 */
export async function httpGet(
  netnsPath: string,
  address: string,
  port: number,
  path: string,
  timeoutMs = 2000,
): Promise<ProbeAnswer> {
  const began = performance.now();
  using netns = openNetns(netnsPath);
  const family = address.includes(":") ? 6 : 4;
  const fd = await native().tcpConnect(netns.fd, { family, address, port, timeout: timeoutMs });
  const socket = new Socket({ fd });
  return new Promise((resolve, reject) => {
    const host = family === 6 ? `[${address}]:${port}` : `${address}:${port}`;
    const outgoing = request(
      { createConnection: () => socket, path, headers: { host, connection: "close" }, timeout: timeoutMs },
      (response) => {
        let body = "";
        response.on("data", (chunk: Buffer) => {
          if (body.length < 1 << 20) body += chunk.toString();
        });
        response.on("error", reject);
        response.on("end", () => {
          socket.destroy();
          resolve({ status: response.statusCode ?? 0, body, milliseconds: performance.now() - began });
        });
      },
    );
    outgoing.on("timeout", () => outgoing.destroy(new Error(`no answer from ${host} within ${timeoutMs} ms`)));
    outgoing.on("error", (error) => {
      socket.destroy();
      reject(error);
    });
    outgoing.end();
  });
}
