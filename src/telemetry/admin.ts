// SPDX-License-Identifier: Apache-2.0
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Clock } from "../core/clock.ts";
import { AgentError, messageOf } from "../core/errors.ts";
import type { Logger } from "../core/ports/telemetry.ts";
import { LoopLag } from "./loop-lag.ts";
import type { PromMetrics } from "./metrics.ts";

/** What keeps the agent from being ready, a sentence each; empty = ready. */
export type Missing = () => readonly string[];

export interface AdminOptions {
  /** Zero or less: not served. */
  readonly monitoringPort: number;
  readonly healthPort: number;
  readonly metrics: Pick<PromMetrics, "text" | "contentType">;
  readonly missing: Missing;
  readonly clock: Clock;
  readonly logger: Logger;
}

interface Answer {
  readonly status: number;
  readonly type: string;
  readonly body: string;
}

type Routes = Readonly<Record<string, () => Answer | Promise<Answer>>>;

/** An event loop that was this late, in ms, serves neither pods nor ztunnel. */
const UNHEALTHY_LAG_MS = 5000;
const REQUEST_TIMEOUT_MS = 5000;
const MAX_CONNECTIONS = 64;
const JSON_TYPE = "application/json";

const json = (status: number, value: unknown): Answer => ({
  status,
  type: JSON_TYPE,
  body: `${JSON.stringify(value)}\n`,
});

/** /metrics on one port; /healthz and /readyz on another, as upstream. */
export class Admin {
  readonly #options: AdminOptions;
  readonly #lag: LoopLag;
  readonly #servers: Server[] = [];

  constructor(options: AdminOptions) {
    this.#options = options;
    this.#lag = new LoopLag(options.clock);
  }

  /** @throws AgentError PORT_UNAVAILABLE naming the port and the setting that moves it */
  async start(): Promise<void> {
    const { monitoringPort, healthPort } = this.#options;
    this.#lag.start();
    try {
      await this.#serve(monitoringPort, "MONITORING_PORT", { "/metrics": () => this.#metrics() });
      await this.#serve(healthPort, "AMBIENT_CNI_HEALTH_PORT", {
        "/healthz": () => this.#health(),
        "/readyz": () => this.#readiness(),
      });
    } catch (error) {
      await this.stop();
      throw error;
    }
  }

  /** Resolves when every socket is closed. */
  async stop(): Promise<void> {
    this.#lag.stop();
    await Promise.all(
      this.#servers.splice(0).map((server) => {
        const closed = new Promise((resolve) => server.close(resolve));
        server.closeAllConnections();
        return closed;
      }),
    );
  }

  async #metrics(): Promise<Answer> {
    const { metrics } = this.#options;
    return { status: 200, type: metrics.contentType, body: await metrics.text() };
  }

  #health(): Answer {
    const lag = Math.round(this.#lag.worst());
    return json(lag < UNHEALTHY_LAG_MS ? 200 : 503, { healthy: lag < UNHEALTHY_LAG_MS, eventLoopLagMs: lag });
  }

  #readiness(): Answer {
    const missing = this.#options.missing();
    return missing.length === 0 ? json(200, { ready: true }) : json(503, { ready: false, missing });
  }

  async #serve(port: number, setting: string, routes: Routes): Promise<void> {
    if (port <= 0) return;
    const options = {
      requestTimeout: REQUEST_TIMEOUT_MS,
      headersTimeout: REQUEST_TIMEOUT_MS,
      // Node looks for expired requests this often, by default only every 30 s.
      connectionsCheckingInterval: 1000,
    };
    const server = createServer(options, (request, response) => {
      void answer(routes, request, response, this.#options.logger);
    });
    boundConnections(server);
    await new Promise<void>((resolve, reject) => {
      server.once("error", (cause) => {
        const message = `cannot listen on port ${port}: ${messageOf(cause)}`;
        reject(
          new AgentError("PORT_UNAVAILABLE", message, `set ${setting} to another port, or to 0 for none`, { cause }),
        );
      });
      server.listen(port, resolve);
    });
    server.removeAllListeners("error");
    server.on("error", (error) => this.#options.logger.warn("http server", { port, error }));
    this.#servers.push(server);
  }
}

/**
 * The newest is served, the oldest goes: any pod may open as many as it likes, and kubelet, which restarts the agent
 * when its probes are not answered, comes with a new one each time.
 */
function boundConnections(server: Server): void {
  const open = new Set<Socket>();
  server.on("connection", (socket) => {
    open.add(socket);
    socket.once("close", () => open.delete(socket));
    const [oldest] = open;
    if (oldest === undefined || open.size <= MAX_CONNECTIONS) return;
    // Closed is told later than that: more may come before.
    open.delete(oldest);
    oldest.destroy();
  });
}

async function answer(
  routes: Routes,
  request: IncomingMessage,
  response: ServerResponse,
  logger: Logger,
): Promise<void> {
  const [path = ""] = (request.url ?? "").split("?", 1);
  const route = Object.hasOwn(routes, path) ? routes[path] : undefined;
  let reply: Answer;
  if (request.method !== "GET" && request.method !== "HEAD") {
    reply = json(405, { error: "only GET and HEAD" });
  } else if (route === undefined) {
    reply = json(404, { error: `known paths: ${Object.keys(routes).join(", ")}` });
  } else {
    try {
      reply = await route();
    } catch (error) {
      logger.error("cannot answer", { path, error });
      reply = json(500, { error: "internal error" });
    }
  }
  // Nobody sends us a body: drop it rather than buffer it.
  request.resume();
  response.writeHead(reply.status, { "content-type": reply.type, "content-length": Buffer.byteLength(reply.body) });
  response.end(request.method === "HEAD" ? undefined : reply.body);
}
