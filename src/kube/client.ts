// SPDX-License-Identifier: Apache-2.0
import { request as httpRequest, type IncomingMessage, type RequestOptions } from "node:http";
import { request as httpsRequest } from "node:https";
import type { Clock } from "../core/clock.ts";
import { AgentError, codeOf, messageOf } from "../core/errors.ts";
import type { Logger } from "../core/ports/telemetry.ts";
import { Connections } from "./connections.ts";
import { CredentialKeeper } from "./credential-keeper.ts";
import type { CredentialSource, Credentials } from "./credentials.ts";
import { type KubeError, kubeError } from "./kube-error.ts";

const MAX_ERROR_BODY = 64 * 1024;
/** Of one object; lists are read as they come. */
const MAX_BODY = 8 * 1024 * 1024;
/** Of a connection that the server has closed: reset, or (EPIPE) ended first and reset then. */
const CLOSED: ReadonlySet<string> = new Set(["ECONNRESET", "EPIPE"]);

export interface KubeCall {
  readonly method: "GET" | "POST" | "PATCH" | "DELETE";
  /** Of the resource, such as `/api/v1/pods`. */
  readonly path: string;
  readonly query?: Readonly<Record<string, string | undefined>>;
  readonly body?: unknown;
  readonly contentType?: string;
  readonly signal?: AbortSignal | undefined;
  /** Until the whole answer is there; for an endless one (a watch), until its headers are. */
  readonly timeoutMs: number;
}

/** A response body that is read as it comes. */
export interface KubeStream {
  readonly chunks: AsyncIterable<Buffer>;
  /** Makes the reader of `chunks` throw `reason`. */
  abort(reason: Error): void;
  /** A body that was not read to its end takes its connection along: resolves when that is closed. */
  close(): Promise<void>;
}

export interface KubeClientOptions {
  readonly credentials: CredentialSource;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly userAgent: string;
}

interface Exchange {
  readonly response: IncomingMessage;
  /** Why we ourselves broke it off; Node would only say "aborted". */
  readonly reason: () => Error | undefined;
  readonly fail: (reason: Error) => void;
  /** Ends the deadline but leaves the call abortable. */
  readonly untimed: () => void;
  readonly release: () => void;
}

/** JSON over HTTP(S) to one API server: deadlines, bounded bodies, fresh credentials, and an end that is one. */
export class KubeClient {
  readonly #keeper: CredentialKeeper;
  readonly #clock: Clock;
  readonly #userAgent: string;
  readonly #open = new Set<(reason: Error) => void>();
  readonly #connections = new Connections();
  #closed = false;

  constructor(options: KubeClientOptions) {
    this.#clock = options.clock;
    this.#userAgent = options.userAgent;
    this.#keeper = new CredentialKeeper(options.credentials, options.clock, options.logger);
  }

  /** Reads the credentials, so that a bad file is told at start. @throws AgentError KUBE_CREDENTIALS. */
  async verifyCredentials(): Promise<void> {
    await this.#keeper.current();
  }

  /** @throws KubeError for an answer of 400 and above, AgentError KUBE_* for everything else. */
  async request(call: KubeCall): Promise<unknown> {
    const exchange = await this.#send(call);
    try {
      return parseJson(call, await readBody(exchange, MAX_BODY));
    } catch (error) {
      throw unreachable(call, exchange.reason() ?? error);
    } finally {
      exchange.release();
    }
  }

  /**
   * Opens a response whose body is read as it comes; with `endless` the deadline ends with the headers.
   * @throws as `request` does, and so does reading.
   */
  async stream(call: KubeCall, endless: boolean): Promise<KubeStream> {
    const exchange = await this.#send(call);
    if (endless) exchange.untimed();
    const { response } = exchange;
    const { socket } = response;
    return {
      chunks: readChunks(exchange, call),
      abort: exchange.fail,
      close: async () => {
        exchange.release();
        if (response.complete) return;
        response.destroy();
        await this.#connections.closeSocket(socket);
      },
    };
  }

  /** Breaks off everything; resolves when every socket is closed. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const fail of this.#open) fail(stopped());
    await this.#connections.close();
  }

  async #send(call: KubeCall): Promise<Exchange> {
    let credentials = await this.#keeper.current();
    let exchange = await this.#dispatch(call, credentials);
    if (exchange.response.statusCode === 401) {
      const refused = credentials.headers.authorization;
      credentials = await this.#keeper.renew();
      if (credentials.headers.authorization !== refused) {
        exchange.release();
        exchange.response.destroy();
        exchange = await this.#dispatch(call, credentials);
      }
    }
    const status = exchange.response.statusCode ?? 0;
    if (status >= 200 && status < 300) return exchange;
    throw await refusal(call, exchange, status);
  }

  async #dispatch(call: KubeCall, credentials: Credentials): Promise<Exchange> {
    for (let attempt = 0; ; attempt++) {
      let reused = false;
      try {
        return await this.#attempt(call, credentials, (was) => {
          reused = was;
        });
      } catch (error) {
        // The server closed an idle connection just as we reused it: all that are idle may be closed by now, so the
        // call goes out once more on a new one. Each of ours may be made twice: what is created has a name.
        if (attempt > 0 || !reused || !CLOSED.has(codeOf(error))) throw unreachable(call, error);
        this.#connections.closeIdle();
      }
    }
  }

  #attempt(call: KubeCall, credentials: Credentials, onReuse: (reused: boolean) => void): Promise<Exchange> {
    return new Promise((resolve, reject) => {
      if (this.#closed || call.signal?.aborted) {
        reject(stopped());
        return;
      }
      const { options, body } = this.#options(call, credentials);
      const request = credentials.tls === undefined ? httpRequest(options) : httpsRequest(options);
      let reason: Error | undefined;
      let response: IncomingMessage | undefined;
      const fail = (why: Error) => {
        reason ??= why;
        if (response === undefined) request.destroy(why);
        else response.destroy(why);
      };
      const onAbort = () => fail(stopped());
      const untimed = this.#clock.after(call.timeoutMs, () => {
        fail(new AgentError("KUBE_TIMEOUT", `no complete answer within ${call.timeoutMs / 1000} s`));
      });
      const release = () => {
        untimed();
        this.#open.delete(fail);
        call.signal?.removeEventListener("abort", onAbort);
      };
      call.signal?.addEventListener("abort", onAbort, { once: true });
      this.#open.add(fail);
      request.on("socket", (socket) => this.#connections.track(socket));
      request.on("response", (incoming) => {
        response = incoming;
        // An error after the reader has left (a late reset) must not become an uncaught exception.
        incoming.on("error", () => undefined);
        resolve({ response: incoming, reason: () => reason, fail, untimed, release });
      });
      request.on("error", (error) => {
        release();
        onReuse(request.reusedSocket);
        reject(reason ?? error);
      });
      request.end(body);
    });
  }

  #options(call: KubeCall, credentials: Credentials): { options: RequestOptions; body: string | undefined } {
    const { server } = credentials;
    const body = call.body === undefined ? undefined : JSON.stringify(call.body);
    const query = new URLSearchParams();
    for (const [name, value] of Object.entries(call.query ?? {})) {
      if (value !== undefined) query.set(name, value);
    }
    const search = query.toString();
    const base = server.pathname.replace(/\/+$/, "");
    return {
      body,
      options: {
        agent: this.#connections.agentFor(credentials.tls),
        method: call.method,
        // URL keeps the brackets of an IPv6 literal, net.connect wants none.
        hostname: server.hostname.replace(/^\[|\]$/g, ""),
        port: server.port === "" ? (credentials.tls === undefined ? 80 : 443) : server.port,
        path: `${base}${call.path}${search === "" ? "" : `?${search}`}`,
        headers: {
          accept: "application/json",
          "user-agent": this.#userAgent,
          ...(body === undefined
            ? {}
            : { "content-type": call.contentType ?? "application/json", "content-length": Buffer.byteLength(body) }),
          ...credentials.headers,
        },
      },
    };
  }
}

async function* readChunks(exchange: Exchange, call: KubeCall): AsyncGenerator<Buffer> {
  try {
    for await (const chunk of exchange.response as AsyncIterable<Buffer>) yield chunk;
  } catch (error) {
    throw unreachable(call, exchange.reason() ?? error);
  }
}

async function readBody(exchange: Exchange, limit: number): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of exchange.response as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > limit) throw new AgentError("KUBE_BODY_TOO_LARGE", `the answer has more than ${limit} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, size).toString("utf8");
}

async function refusal(call: KubeCall, exchange: Exchange, status: number): Promise<KubeError> {
  const retryAfter = exchange.response.headers["retry-after"];
  let body: unknown;
  try {
    const text = await readBody(exchange, MAX_ERROR_BODY);
    try {
      body = JSON.parse(text);
    } catch {
      body = text;
    }
  } catch {
    // The status alone is enough to act on.
  } finally {
    exchange.release();
  }
  return kubeError(describe(call), status, body, retryAfter);
}

function parseJson(call: KubeCall, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new AgentError(
      "KUBE_MALFORMED",
      `${describe(call)}: the answer is no JSON: ${JSON.stringify(text.slice(0, 80))}`,
      undefined,
      {
        cause: error,
      },
    );
  }
}

function describe(call: KubeCall): string {
  return `${call.method} ${call.path}`;
}

function stopped(): AgentError {
  return new AgentError("KUBE_STOPPED", "the call was broken off");
}

function unreachable(call: KubeCall, error: unknown): AgentError {
  if (error instanceof AgentError) {
    return error.message.startsWith(call.method)
      ? error
      : new AgentError(error.code, `${describe(call)}: ${error.message}`, error.remedy, { cause: error });
  }
  return new AgentError("KUBE_UNREACHABLE", `${describe(call)}: ${messageOf(error)}`, undefined, { cause: error });
}
