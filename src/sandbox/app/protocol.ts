// SPDX-License-Identifier: Apache-2.0
// What the sandbox says to the program inside a pod, one JSON object per line on its stdin, and what
// comes back on its stdout.

export const HTTP_PORT = 8080;
export const ECHO_PORT = 9090;

export type AppCommand =
  /** One HTTP GET on a connection of its own. */
  | { readonly op: "fetch"; readonly url: string; readonly marker: string }
  /** Opens a TCP connection to an echo server and keeps it under `name`. */
  | { readonly op: "open"; readonly name: string; readonly host: string; readonly port: number }
  /** Sends a line on a kept connection and waits for its echo. */
  | { readonly op: "say"; readonly name: string; readonly line: string }
  | { readonly op: "close"; readonly name: string }
  /** Asks one nameserver; the answer must come from its address. */
  | { readonly op: "resolve"; readonly server: string; readonly host: string; readonly family: 4 | 6 };

export interface AppRequest {
  readonly id: number;
  readonly timeoutMs: number;
  readonly command: AppCommand;
}

/** Who answered, and which addresses each side saw. */
export interface Exchange {
  /** Name of the pod that answered. */
  readonly server: string;
  /** The client's address as the server saw it. */
  readonly clientSeen: string;
  /** The server's own address as the server saw it. */
  readonly serverSeen: string;
  /** getpeername and getsockname of the client. */
  readonly clientPeer: string;
  readonly clientLocal: string;
  readonly milliseconds: number;
}

export type AppReply =
  | { readonly id: number; readonly ok: true; readonly value: Exchange | readonly string[] | string }
  | {
      readonly id: number;
      readonly ok: false;
      readonly code: string;
      readonly message: string;
      readonly milliseconds: number;
    };
