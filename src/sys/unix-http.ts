// SPDX-License-Identifier: Apache-2.0
import { randomBytes } from "node:crypto";
import { chmodSync, lstatSync, mkdirSync, renameSync, unlinkSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { dirname, join } from "node:path";
import { AgentError, messageOf } from "../core/errors.ts";
import { requireSocketPath } from "./files.ts";

/** A unix socket's address holds 107 bytes. */
const SOCKET_PATH_MAX = 107;
/** A client that is slow to send is cut off after this many ms. */
const RECEIVE_TIMEOUT_MS = 5000;

export type RequestListener = (request: IncomingMessage, response: ServerResponse) => void;

export interface UnixHttpOptions {
  readonly path: string;
  /** Of the socket; its directory is made with 0750 where it is missing. */
  readonly mode: number;
  readonly listener: RequestListener;
  /** Hears of connections that could not be accepted (EMFILE); the server goes on. */
  readonly failed: (error: Error) => void;
  /** Further connections are refused; undefined: no bound. */
  readonly maxConnections?: number;
}

/** HTTP on a unix socket. Slow senders and idle connections are cut off. */
export class UnixHttpServer {
  private readonly server: Server;
  /** Inode of our socket, once it is bound. */
  private own: bigint | undefined;

  constructor(private readonly options: UnixHttpOptions) {
    this.server = createServer(
      {
        headersTimeout: RECEIVE_TIMEOUT_MS,
        requestTimeout: RECEIVE_TIMEOUT_MS,
        // Node looks for expired requests this often, by default only every 30 s.
        connectionsCheckingInterval: 1000,
        keepAliveTimeout: 1000,
        maxHeaderSize: 8192,
      },
      options.listener,
    );
    this.server.maxHeadersCount = 50;
    if (options.maxConnections !== undefined) this.server.maxConnections = options.maxConnections;
  }

  /**
   * Binds, in place of a socket that a former run left behind. It is bound under another name and renamed:
   * it never has another mode, and no client meets a path without a socket.
   * @throws AgentError SOCKET_PATH | NOT_A_SOCKET; errors of the file system and of listen
   */
  async listen(): Promise<void> {
    const { path, mode, failed } = this.options;
    if (Buffer.byteLength(path) > SOCKET_PATH_MAX) {
      // Node would cut the path short and listen elsewhere.
      throw new AgentError(
        "SOCKET_PATH",
        `${path} is longer than ${SOCKET_PATH_MAX} bytes, the bound of a unix socket's address`,
        "set CNI_AGENT_RUN_DIR to a shorter path",
      );
    }
    const directory = dirname(path);
    mkdirSync(directory, { recursive: true, mode: 0o750 });
    requireSocketPath(path);
    // Not longer than the names of our sockets, whose paths may have just as many bytes as are allowed.
    const draft = join(directory, `.${randomBytes(3).toString("hex")}`);
    await new Promise<void>((resolve, reject) => {
      this.server.once("error", reject);
      this.server.listen(draft, () => {
        this.server.off("error", reject);
        this.server.on("error", failed);
        resolve();
      });
    });
    try {
      chmodSync(draft, mode);
      this.own = lstatSync(draft, { bigint: true }).ino;
      renameSync(draft, path);
    } catch (error) {
      unlinkSync(draft);
      throw error;
    }
  }

  /** Stops listening, removes the socket unless a successor's is there, and cuts open connections. Idempotent. */
  async stop(): Promise<void> {
    if (!this.server.listening) return;
    const { path } = this.options;
    if (lstatSync(path, { bigint: true, throwIfNoEntry: false })?.ino === this.own) unlinkSync(path);
    await new Promise<void>((resolve) => {
      this.server.close(() => resolve());
      this.server.closeAllConnections();
    });
  }
}

/**
 * A request's body as text, of at most `maxBytes`.
 * @throws AgentError BODY_TOO_LARGE | BODY_INCOMPLETE | BODY_ENCODING
 */
export async function readBody(request: IncomingMessage, maxBytes: number): Promise<string> {
  const chunks: Buffer[] = [];
  let total = 0;
  try {
    for await (const chunk of request) {
      if (!Buffer.isBuffer(chunk)) continue;
      total += chunk.length;
      // Not kept, but read on for a while: a client that still writes would miss the answer.
      if (total > 16 * maxBytes) break;
      if (total <= maxBytes) chunks.push(chunk);
    }
  } catch (error) {
    throw new AgentError("BODY_INCOMPLETE", `the request ended before its body: ${messageOf(error)}`);
  }
  if (total > maxBytes) throw new AgentError("BODY_TOO_LARGE", `the body is larger than ${maxBytes} bytes`);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(Buffer.concat(chunks));
  } catch {
    throw new AgentError("BODY_ENCODING", "the body is not UTF-8");
  }
}

/** Sends an answer with its length and closes the connection: plugins make one request. */
export function respond(
  response: ServerResponse,
  status: number,
  contentType: string,
  body: string,
  headers: Readonly<Record<string, string>> = {},
): void {
  if (response.headersSent || response.destroyed) return;
  response.writeHead(status, {
    ...headers,
    "Content-Type": contentType,
    "Content-Length": Buffer.byteLength(body),
    Connection: "close",
  });
  response.end(body);
}
