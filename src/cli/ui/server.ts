// SPDX-License-Identifier: Apache-2.0
import { randomBytes, timingSafeEqual } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { AgentError, codeOf, messageOf } from "../../core/errors.ts";
import { PAGE, PAGE_DOCUMENTS, PAGE_HEADERS } from "../../telemetry/page/page.ts";

type DocumentName = (typeof PAGE_DOCUMENTS)[number];

export interface UiOptions {
  /** 0: one that is free. */
  readonly port: number;
  /** Several tabs share an answer that is younger than this, in ms. */
  readonly freshMs?: number;
  readonly read: (name: DocumentName) => Promise<unknown>;
}

const ADDRESS = "127.0.0.1";
const TIMEOUT_MS = 5000;
const MAX_CONNECTIONS = 32;
const FRESH_MS = 900;

/**
 * The status page on loopback. Everybody on the node reaches loopback, and a browser may be led there by any web
 * page, so: the path holds a secret, the name that was asked for must be ours (DNS rebinding), and there is
 * nothing but GET.
 */
export class UiServer {
  readonly #server: Server;
  readonly #secret = randomBytes(16).toString("base64url");
  readonly #kept = new Map<DocumentName, { readonly until: number; readonly document: Promise<unknown> }>();

  constructor(private readonly options: UiOptions) {
    this.#server = createServer(
      { headersTimeout: TIMEOUT_MS, requestTimeout: TIMEOUT_MS, keepAliveTimeout: TIMEOUT_MS, maxHeaderSize: 8192 },
      (request, response) => void this.#answer(request, response),
    );
    this.#server.maxConnections = MAX_CONNECTIONS;
  }

  /** Resolves with the page's address. @throws AgentError PORT_UNAVAILABLE that names the port */
  async listen(): Promise<string> {
    const { port } = this.options;
    await new Promise<void>((resolve, reject) => {
      this.#server.once("error", (cause) => {
        reject(new AgentError("PORT_UNAVAILABLE", `cannot listen on ${ADDRESS}:${port}: ${messageOf(cause)}`));
      });
      this.#server.listen(port, ADDRESS, resolve);
    });
    return `http://${ADDRESS}:${this.#port}/${this.#secret}/`;
  }

  async stop(): Promise<void> {
    await new Promise((resolve) => {
      this.#server.close(resolve);
      this.#server.closeAllConnections();
    });
  }

  get #port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    request.resume();
    const [status, type, body] = await this.#reply(request);
    response.writeHead(status, { ...PAGE_HEADERS, "Content-Type": type, "Content-Length": Buffer.byteLength(body) });
    response.end(request.method === "HEAD" ? undefined : body);
  }

  async #reply({ method, url = "", headers }: IncomingMessage): Promise<readonly [number, string, string]> {
    const names = [ADDRESS, "localhost"].map((name) => `${name}:${this.#port}`);
    if (!names.includes(headers.host ?? "")) return refusal(403, "FORBIDDEN", "this name is not ours");
    const site = headers["sec-fetch-site"] ?? "none";
    if (site !== "none" && site !== "same-origin") return refusal(403, "FORBIDDEN", "another site asks");
    if (method !== "GET" && method !== "HEAD") return refusal(405, "METHOD_NOT_ALLOWED", "only GET and HEAD");
    const [, secret = "", ...rest] = (url.split("?", 1)[0] ?? "").split("/");
    const path = rest.join("/");
    const name = PAGE_DOCUMENTS.find((one) => path === `v1/${one}`);
    const known = this.#isSecret(secret) && rest.length > 0;
    if (known && path === "") return [200, "text/html; charset=utf-8", PAGE];
    if (!known || name === undefined) return refusal(404, "NOT_FOUND", "nothing is here");
    try {
      return [200, "application/json", JSON.stringify(await this.#document(name))];
    } catch (error) {
      return refusal(503, codeOf(error), messageOf(error));
    }
  }

  #isSecret(text: string): boolean {
    const [given, wanted] = [Buffer.from(text), Buffer.from(this.#secret)];
    return given.length === wanted.length && timingSafeEqual(given, wanted);
  }

  #document(name: DocumentName): Promise<unknown> {
    const kept = this.#kept.get(name);
    if (kept !== undefined && performance.now() < kept.until) return kept.document;
    const document = this.options.read(name);
    this.#kept.set(name, { until: performance.now() + (this.options.freshMs ?? FRESH_MS), document });
    return document;
  }
}

function refusal(status: number, code: string, message: string): readonly [number, string, string] {
  return [status, "application/json", JSON.stringify({ error: { code, message, remedy: null } })];
}
