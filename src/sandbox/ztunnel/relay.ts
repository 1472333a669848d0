// SPDX-License-Identifier: Apache-2.0
import type { Duplex } from "node:stream";
import { codeOf, messageOf } from "../../core/errors.ts";

export interface RelayCounter {
  addSent(bytes: number): void;
  addReceived(bytes: number): void;
}

/** Ways a connection may end that say nothing about the mesh; ztunnel does not report them either. */
const ORDINARY_ENDS = new Set([
  "ECONNRESET",
  "EPIPE",
  "ENOTCONN",
  "ERR_STREAM_PREMATURE_CLOSE",
  "ERR_STREAM_DESTROYED",
  "ERR_STREAM_WRITE_AFTER_END",
  "ERR_HTTP2_STREAM_CANCEL",
  "ERR_HTTP2_STREAM_ERROR",
  "ERR_HTTP2_SESSION_ERROR",
  "ERR_HTTP2_INVALID_STREAM",
]);

/**
 * Copies both ways with back pressure until both are over, as ztunnel's src/copy.rs does: the end of one
 * side (FIN or RST alike) becomes a FIN on the other, whose own direction goes on; a side that can't be
 * written any more ends its direction at the next byte. Closes both and resolves to the first error worth
 * reporting, if any. Neither stream may have been read before.
 */
export async function relay(client: Duplex, server: Duplex, counter: RelayCounter): Promise<string | undefined> {
  let failure: string | undefined;
  const watch = (error: unknown) => {
    if (!ORDINARY_ENDS.has(codeOf(error))) failure ??= messageOf(error);
  };
  client.on("error", watch);
  server.on("error", watch);
  await Promise.all([
    pump(client, server, (bytes) => counter.addSent(bytes)),
    pump(server, client, (bytes) => counter.addReceived(bytes)),
  ]);
  release(client);
  release(server);
  return failure;
}

/** Moves bytes until `from` ends or `to` breaks; then `to` has had its FIN. */
function pump(from: Duplex, to: Duplex, count: (bytes: number) => void): Promise<void> {
  return new Promise((resolve) => {
    let waiting = false;
    let over = false;
    const finish = () => {
      if (over) return;
      over = true;
      from.pause();
      if (to.destroyed || to.writableFinished) return resolve();
      to.once("finish", resolve);
      to.once("close", resolve);
      if (!to.writableEnded) to.end();
    };
    from.on("data", (chunk: Buffer) => {
      if (over) return;
      if (!to.writable) return finish();
      count(chunk.length);
      if (to.write(chunk)) return;
      waiting = true;
      from.pause();
    });
    to.on("drain", () => {
      waiting = false;
      if (!over) from.resume();
    });
    // A destination that breaks while we wait for room will never have any.
    to.once("close", () => {
      if (waiting) finish();
    });
    from.once("end", finish);
    from.once("close", finish);
    if (from.destroyed || from.readableEnded) finish();
    // A listener for data does not start a stream that was explicitly paused, as accepted sockets are.
    else from.resume();
  });
}

/** What dropping the connection does: nothing after a clean end, else a close (TCP) or a cancel (HTTP/2). */
function release(stream: Duplex): void {
  const clean = stream.readableEnded && stream.writableFinished;
  if (!clean || !("session" in stream)) stream.destroy();
}
