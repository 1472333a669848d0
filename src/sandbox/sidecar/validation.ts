// SPDX-License-Identifier: Apache-2.0
// The check of the init container istio-validation: it listens where the sidecar will, connects as the sidecar
// would to an address that only the redirection leads there, and ends with 126 when nobody sees that.
import { createServer } from "node:net";
import { SIDECAR_PORT } from "../../core/constants.ts";
import type { Family } from "../../core/ip.ts";
import { native } from "../../native/load.ts";
import { fdOf } from "../ztunnel/socket-fd.ts";
import { becomeUser } from "./identity.ts";

const PROXY_ID = 1337;
const PORT = 15002;
const LISTEN = { 4: "127.0.0.1", 6: "::1" } as const;
const CALL = { 4: "127.0.0.6", 6: "::6" } as const;
const DEADLINE_MS = 5000;
const RETRY_MS = 1000;
const FAILED = 126;

/** Exits with 0 once a listener has seen the original destination port, with 126 after 5 s. */
export function runValidation(family: Family): void {
  const binding = native();
  becomeUser({ uid: PROXY_ID, gid: PROXY_ID });
  for (const port of [SIDECAR_PORT.outbound, SIDECAR_PORT.inbound]) {
    const server = createServer((socket) => {
      const seen = binding.originalDestination(fdOf(socket))?.port;
      socket.end(String(seen));
      if (seen === PORT) process.exit(0);
    });
    server.listen({ fd: binding.tcpListen(null, { family, bind: { address: LISTEN[family], port } }) });
  }
  const call = () => {
    const bind = { address: LISTEN[family], port: 0 };
    binding.tcpConnect(null, { family, bind, address: CALL[family], port: PORT, timeout: RETRY_MS }).then(
      (fd) => binding.close(fd),
      (error: unknown) => process.stderr.write(`${String(error)}\n`),
    );
  };
  call();
  setInterval(call, RETRY_MS);
  setTimeout(() => process.exit(FAILED), DEADLINE_MS);
}
