// SPDX-License-Identifier: Apache-2.0
import type { IncomingMessage, ServerResponse } from "node:http";
import * as v from "valibot";
import { type Clock, systemClock } from "../core/clock.ts";
import type { Stop } from "../core/disposable.ts";
import { AgentError, codeOf, messageOf } from "../core/errors.ts";
import type { Logger } from "../core/ports/telemetry.ts";
import { DEBUG_PREFIX } from "../core/report/document.ts";
import { readBody, respond, UnixHttpServer } from "../sys/unix-http.ts";
import { PAGE, PAGE_HEADERS } from "./page/page.ts";

/** One path. GET never changes anything; what does is a POST with a body of its own. */
export interface DebugRoute {
  readonly get?: (query: URLSearchParams) => unknown;
  readonly post?: (body: unknown) => unknown;
  /** An answer without an end: lines of JSON until the reader goes or the function that is returned is called. */
  readonly stream?: (query: URLSearchParams, sink: StreamSink) => Stop;
  /** In ms, in place of DEADLINE_MS: for what works long. */
  readonly deadlineMs?: number;
}

/** False: the reader has too much unread, and what was to be sent is gone. */
export type StreamSink = (text: string) => boolean;

export type DebugRoutes = Readonly<Record<string, DebugRoute>>;

export interface DebugServerOptions {
  readonly path: string;
  /** By name: served at /v1/NAME. */
  readonly routes: DebugRoutes;
  readonly logger: Logger;
  readonly clock?: Clock;
}

/** Root alone: what is shown here no tenant should read, and levels can be changed. */
const MODE = 0o600;
const BODY_MAX = 64 * 1024;
const URL_MAX = 2048;
/** Bytes of an answer; a document that outgrew it would be refused by its reader. */
const ANSWER_MAX = 16 << 20;
const DEADLINE_MS = 5000;
const MAX_CONNECTIONS = 32;
/** Of those, streams: questions must find room beside them. */
const MAX_STREAMS = 16;
/** Bytes that a reader may leave unread; with what the kernel holds of them, all that one ever costs. */
const UNREAD_MAX = 1 << 20;
/** Requests in work at once: a hundred watchers must not keep the agent from its pods. */
const MAX_CONCURRENT = 8;

/** A POST route whose body is checked first. */
export function posted<T extends v.GenericSchema>(
  schema: T,
  run: (body: v.InferOutput<T>) => unknown,
): Required<DebugRoute>["post"] {
  return (body) => {
    const result = v.safeParse(schema, body);
    if (result.success) return run(result.output);
    const [issue] = result.issues;
    const path = v.getDotPath(issue);
    throw new AgentError("BAD_REQUEST", `${path === null ? "the body" : path}: ${issue.message}`);
  };
}

/** The agent's answers to the command line: JSON documents over HTTP on a unix socket. */
export class DebugServer {
  readonly #http: UnixHttpServer;
  readonly #options: DebugServerOptions;
  readonly #clock: Clock;
  #active = 0;
  #streams = 0;

  constructor(options: DebugServerOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#http = new UnixHttpServer({
      path: options.path,
      mode: MODE,
      maxConnections: MAX_CONNECTIONS,
      listener: (request, response) => void this.#answer(request, response),
      failed: (error) => options.logger.error("the debug socket can't accept", { error: error.message }),
    });
  }

  /** @throws as UnixHttpServer.listen */
  listen(): Promise<void> {
    return this.#http.listen();
  }

  stop(): Promise<void> {
    return this.#http.stop();
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    let status = 200;
    let text: string;
    try {
      requireOwnName(request);
      if (request.method === "GET" && request.url === "/") {
        request.resume();
        return respond(response, 200, "text/html; charset=utf-8", PAGE, PAGE_HEADERS);
      }
      if (this.#streamed(request, response)) return;
      text = JSON.stringify(await this.#work(request));
      if (Buffer.byteLength(text) > ANSWER_MAX) {
        throw new AgentError("ANSWER_TOO_LARGE", `the answer is larger than ${ANSWER_MAX} bytes`);
      }
    } catch (error) {
      status = statusOf(error);
      if (status === 500) this.#options.logger.error("the debug socket can't answer", { url: request.url, error });
      const remedy = error instanceof AgentError ? error.remedy : undefined;
      text = JSON.stringify({ error: { code: codeOf(error), message: messageOf(error), remedy: remedy ?? null } });
    }
    // What is left of a body that nobody reads.
    request.resume();
    respond(response, status, "application/json", `${text}\n`);
  }

  /** True: the answer is a stream, which has begun. */
  #streamed(request: IncomingMessage, response: ServerResponse): boolean {
    const { route, query } = this.#route(request);
    const { stream } = route;
    if (request.method !== "GET" || stream === undefined) return false;
    if (this.#streams >= MAX_STREAMS) throw new AgentError("BUSY", `${MAX_STREAMS} streams are read already`);
    let open = true;
    const sink: StreamSink = (text) => {
      if (!open || response.writableLength > UNREAD_MAX) return false;
      if (!response.headersSent) {
        response.writeHead(200, { "Content-Type": "application/x-ndjson", Connection: "close" });
      }
      response.write(text);
      return true;
    };
    const stop = stream(query, sink);
    this.#streams += 1;
    response.on("error", () => undefined);
    response.once("close", () => {
      open = false;
      this.#streams -= 1;
      stop();
    });
    request.resume();
    return true;
  }

  /** @throws AgentError BAD_REQUEST | NOT_FOUND */
  #route({ url = "" }: IncomingMessage): { readonly route: DebugRoute; readonly query: URLSearchParams } {
    const { routes } = this.#options;
    if (url.length > URL_MAX) throw new AgentError("BAD_REQUEST", `the URL is longer than ${URL_MAX} characters`);
    const [path = "", query = ""] = url.split("?", 2);
    const name = path.startsWith(DEBUG_PREFIX) ? path.slice(DEBUG_PREFIX.length) : "";
    const route = Object.hasOwn(routes, name) ? routes[name] : undefined;
    if (route === undefined) {
      const known = Object.keys(routes).map((one) => DEBUG_PREFIX + one);
      throw new AgentError("NOT_FOUND", `known paths: ${known.join(", ")}`);
    }
    return { route, query: new URLSearchParams(query) };
  }

  async #work(request: IncomingMessage): Promise<unknown> {
    const { method = "", url = "" } = request;
    const { route, query } = this.#route(request);
    const { get, post, deadlineMs = DEADLINE_MS } = route;
    const work =
      method === "GET" && get !== undefined
        ? () => get(query)
        : method === "POST" && post !== undefined
          ? async () => post(parseJson(await readBody(request, BODY_MAX)))
          : undefined;
    if (work === undefined)
      throw new AgentError("METHOD_NOT_ALLOWED", `${url.split("?", 1)[0]} does not take ${method}`);
    if (this.#active >= MAX_CONCURRENT) throw new AgentError("BUSY", "too many questions at once", "ask again");
    this.#active += 1;
    const done = Promise.resolve()
      .then(work)
      .finally(() => {
        this.#active -= 1;
      });
    return this.#within(deadlineMs, done);
  }

  /** Work that takes longer goes on, and counts as active until it has ended. */
  async #within(deadlineMs: number, work: Promise<unknown>): Promise<unknown> {
    let cancel = (): void => undefined;
    const late = new Promise<never>((_, reject) => {
      cancel = this.#clock.after(deadlineMs, () =>
        reject(new AgentError("DEADLINE", `not answered within ${deadlineMs} ms`)),
      );
    });
    try {
      return await Promise.race([work, late]);
    } finally {
      cancel();
    }
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new AgentError("BAD_REQUEST", `the body is not JSON: ${messageOf(error)}`);
  }
}

/**
 * Whoever forwards the socket to a port (ssh -L) lets a browser reach it, which any web page may lead there: under
 * another name (DNS rebinding), or with a request of its own.
 * @throws AgentError FORBIDDEN
 */
function requireOwnName({ headers, method }: IncomingMessage): void {
  const [, name = ""] = /^(.*?)(?::\d{1,5})?$/.exec(headers.host ?? "") ?? [];
  if (!OWN_NAMES.has(name))
    throw new AgentError("FORBIDDEN", `${JSON.stringify(name.slice(0, 80))} is no name of this socket`);
  const site = headers["sec-fetch-site"] ?? "none";
  const foreign = site !== "none" && site !== "same-origin";
  if (foreign || (method !== "GET" && headers.origin !== undefined))
    throw new AgentError("FORBIDDEN", "a web page asks");
}

const OWN_NAMES: ReadonlySet<string> = new Set(["", "localhost", "127.0.0.1", "[::1]"]);

const STATUS: Readonly<Record<string, number>> = {
  BAD_REQUEST: 400,
  FORBIDDEN: 403,
  BODY_TOO_LARGE: 400,
  BODY_INCOMPLETE: 400,
  BODY_ENCODING: 400,
  NOT_FOUND: 404,
  METHOD_NOT_ALLOWED: 405,
  BUSY: 503,
  DEADLINE: 504,
};

/** 422: the request is right and can't be served, with a code that says why; 500: a bug. */
function statusOf(error: unknown): number {
  return STATUS[codeOf(error)] ?? (error instanceof AgentError ? 422 : 500);
}
