// SPDX-License-Identifier: Apache-2.0
// ztunnel's own HTTP ports, in its own netns: 15000 (what is inside) and 15021 (ready or not).
import { once } from "node:events";
import { createServer, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface AdminOptions {
  readonly adminPort: number;
  readonly readinessPort: number;
  /** Everything of `/config_dump`. */
  readonly dump: () => object;
  /** What readiness waits for; empty when ready. */
  readonly pending: () => readonly string[];
  /** `POST /quitquitquit`. */
  readonly quit: () => void;
}

/** The two servers, and the ports they really got. */
export interface Admin {
  readonly adminPort: number;
  readonly readinessPort: number;
  close(): void;
}

/** @throws Error (EADDRINUSE) when a port is taken. */
export async function startAdmin(options: AdminOptions): Promise<Admin> {
  const admin = createServer((request, response) => {
    if (request.url === "/config_dump" && request.method === "GET") {
      send(response, 200, JSON.stringify(options.dump(), null, 2), "application/json");
    } else if (request.url === "/quitquitquit") {
      if (request.method !== "POST") return send(response, 405, "");
      send(response, 200, "shutdown now\n");
      options.quit();
    } else send(response, 404, "");
  });
  const readiness = createServer((request, response) => {
    if (request.url !== "/healthz/ready") return send(response, 404, "");
    if (request.method !== "GET") return send(response, 405, "");
    const pending = [...options.pending()].sort();
    if (pending.length === 0) send(response, 200, "ready\n");
    else send(response, 500, `not ready, pending: ${pending.join(", ")}\n`);
  });
  try {
    const adminPort = await listen(admin, options.adminPort, "127.0.0.1");
    const readinessPort = await listen(readiness, options.readinessPort, undefined);
    return { adminPort, readinessPort, close: () => [admin, readiness].forEach(shut) };
  } catch (error) {
    [admin, readiness].forEach(shut);
    throw error;
  }
}

async function listen(server: Server, port: number, host: string | undefined): Promise<number> {
  server.listen(port, host);
  await once(server, "listening");
  const address: AddressInfo | string | null = server.address();
  return typeof address === "object" && address !== null ? address.port : port;
}

function shut(server: Server): void {
  server.close();
  server.closeAllConnections();
}

function send(response: ServerResponse, status: number, body: string, type = "text/plain"): void {
  response.writeHead(status, { "content-type": type }).end(body);
}
