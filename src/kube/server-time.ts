// SPDX-License-Identifier: Apache-2.0
import { type ClientRequest, request as httpRequest } from "node:http";
import { Agent as HttpsAgent, request as httpsRequest } from "node:https";
import { TLSSocket } from "node:tls";
import { AgentError, messageOf } from "../core/errors.ts";
import type { Credentials } from "./credentials.ts";

/** The API server's clock, compared with this machine's. */
export interface ServerTime {
  /** Positive: the server is ahead, this machine behind. */
  readonly aheadMs: number;
  /** The header has whole seconds, and the answer was on its way. */
  readonly uncertaintyMs: number;
  /** Why its certificate was not trusted: a clock that is far off makes every certificate invalid. */
  readonly untrusted: string | undefined;
}

/**
 * Asks for the server's time by the Date of an answer (RFC 9110 6.6.1), whatever the answer. No token is sent, and
 * nothing but the time is read: so it is asked also when its certificate is not trusted.
 * @throws AgentError KUBE_UNREACHABLE | KUBE_TIMEOUT | KUBE_MALFORMED
 */
export function serverTime(
  { server, tls }: Pick<Credentials, "server" | "tls">,
  timeoutMs: number,
): Promise<ServerTime> {
  return new Promise((resolve, reject) => {
    const options = {
      method: "GET",
      hostname: server.hostname.replace(/^\[|\]$/g, ""),
      port: server.port === "" ? (tls === undefined ? 80 : 443) : server.port,
      path: `${server.pathname.replace(/\/+$/, "")}/version`,
      headers: { accept: "application/json", connection: "close" },
    };
    let sentAt = Date.now();
    const request: ClientRequest =
      tls === undefined
        ? httpRequest(options)
        : httpsRequest({
            ...options,
            agent: new HttpsAgent({
              secureContext: tls.context,
              rejectUnauthorized: false,
              ...(tls.servername === undefined ? {} : { servername: tls.servername }),
            }),
          });
    const timer = setTimeout(() => {
      request.destroy(new AgentError("KUBE_TIMEOUT", `no answer of ${server.host} within ${timeoutMs} ms`));
    }, timeoutMs);
    request.on("finish", () => {
      sentAt = Date.now();
    });
    request.on("response", (response) => {
      clearTimeout(timer);
      const receivedAt = Date.now();
      const { socket } = response;
      const date = Date.parse(response.headers.date ?? "");
      response.destroy();
      if (Number.isNaN(date)) {
        reject(new AgentError("KUBE_MALFORMED", `the answer of ${server.host} has no Date`));
        return;
      }
      resolve({
        aheadMs: date + 500 - (sentAt + receivedAt) / 2,
        uncertaintyMs: 500 + (receivedAt - sentAt) / 2,
        untrusted: socket instanceof TLSSocket && !socket.authorized ? messageOf(socket.authorizationError) : undefined,
      });
    });
    request.on("error", (cause) => {
      clearTimeout(timer);
      reject(
        cause instanceof AgentError
          ? cause
          : new AgentError("KUBE_UNREACHABLE", `${server.host}: ${messageOf(cause)}`, undefined, { cause }),
      );
    });
    request.end();
  });
}
