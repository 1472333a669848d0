// SPDX-License-Identifier: Apache-2.0
// The playground's API server, made to misbehave as real ones and the paths to them do.
import type { ServerResponse } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { TLSSocket } from "node:tls";
import { ApiServer } from "../../src/sandbox/apiserver/api-server.ts";
import { ApiFailure } from "../../src/sandbox/apiserver/failure.ts";
import type { ApiRequest } from "../../src/sandbox/apiserver/request.ts";
import type { WatchLineType } from "../../src/sandbox/apiserver/watch-session.ts";

export type Fault =
  /** A Status object with this code; 0 s or more in Retry-After. */
  | { readonly kind: "status"; readonly code: number; readonly retryAfter?: number; readonly message?: string }
  /** 200, and the end of the body at once. */
  | { readonly kind: "close" }
  /** TCP reset instead of an answer. */
  | { readonly kind: "reset" }
  /** 200 and the headers, then a TCP reset. */
  | { readonly kind: "resetBody" }
  /** The request is read, nothing is ever answered, the connection stays open. */
  | { readonly kind: "hang" }
  /** 200 and the headers, then nothing, the connection stays open: a half-open path. */
  | { readonly kind: "silence" }
  /** 200 and an ERROR event with this code. */
  | { readonly kind: "errorEvent"; readonly code: number; readonly message?: string }
  /** 200 and exactly these bytes. */
  | { readonly kind: "bytes"; readonly bytes: string | Buffer }
  /** The right answer, late. */
  | { readonly kind: "delay"; readonly ms: number };

export interface FaultRule {
  readonly when: (request: ApiRequest) => boolean;
  readonly fault: Fault;
  /** Default: for ever. */
  readonly times?: number;
}

export const isWatch = (request: ApiRequest): boolean => request.target?.verb === "watch";
export const isList = (request: ApiRequest): boolean => request.target?.verb === "list";
export const isVerb =
  (verb: string) =>
  (request: ApiRequest): boolean =>
    request.target?.verb === verb;

export class FaultyApiServer extends ApiServer {
  /** Every request that arrived, in order. */
  readonly requests: ApiRequest[] = [];
  /** Watch lines are written in pieces of this many bytes. */
  pieceSize: number | undefined;
  dropBookmarks = false;
  #rules: { rule: FaultRule; left: number }[] = [];

  /** The first rule that fits a request decides; exhausted rules are gone. */
  fail(rule: FaultRule): void {
    this.#rules.push({ rule, left: rule.times ?? Number.POSITIVE_INFINITY });
  }

  heal(): void {
    this.#rules = [];
  }

  requestsOf(verb: string, plural?: string): readonly ApiRequest[] {
    return this.requests.filter(
      ({ target }) => target?.verb === verb && (plural === undefined || target.resource.plural === plural),
    );
  }

  protected override async intercept(request: ApiRequest, response: ServerResponse): Promise<boolean> {
    this.requests.push(request);
    const entry = this.#rules.find(({ rule }) => rule.when(request));
    if (entry === undefined) return false;
    entry.left -= 1;
    if (entry.left <= 0) this.#rules = this.#rules.filter((other) => other !== entry);
    return this.#inject(entry.rule.fault, response);
  }

  protected override writeWatchLine(response: ServerResponse, type: WatchLineType, line: string): void {
    if (type === "BOOKMARK" && this.dropBookmarks) return;
    const bytes = Buffer.from(line);
    const size = this.pieceSize ?? bytes.length;
    for (let start = 0; start < bytes.length; start += size) response.write(bytes.subarray(start, start + size));
  }

  async #inject(fault: Fault, response: ServerResponse): Promise<boolean> {
    switch (fault.kind) {
      case "status": {
        if (fault.retryAfter !== undefined) response.setHeader("retry-after", String(fault.retryAfter));
        throw new ApiFailure(fault.code, fault.message ?? "injected");
      }
      case "reset":
        cut(response);
        return true;
      case "hang":
        return true;
      case "delay":
        await sleep(fault.ms);
        return false;
      default:
        response.writeHead(200, { "content-type": "application/json" });
        response.flushHeaders();
        this.#injectBody(fault, response);
        return true;
    }
  }

  #injectBody(fault: Fault, response: ServerResponse): void {
    if (fault.kind === "close") response.end();
    if (fault.kind === "resetBody") setImmediate(() => cut(response));
    if (fault.kind === "bytes") response.end(fault.bytes);
    if (fault.kind === "errorEvent") {
      const failure = new ApiFailure(fault.code, fault.message ?? "injected");
      response.end(`${JSON.stringify({ type: "ERROR", object: failure.toStatus() })}\n`);
    }
  }
}

/** A TLS socket can't be reset from above; its sudden end without close_notify looks the same to the peer. */
function cut(response: ServerResponse): void {
  const { socket } = response;
  if (socket instanceof TLSSocket) socket.destroy();
  else socket?.resetAndDestroy();
}
