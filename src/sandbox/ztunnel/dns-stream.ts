// SPDX-License-Identifier: Apache-2.0
import type { Socket } from "node:net";

/** DNS over TCP: each message behind its length in two bytes (RFC 1035 4.2.2). Resumes the socket. */
export function readMessages(socket: Socket, each: (message: Buffer) => void): void {
  let rest: Buffer = Buffer.alloc(0);
  socket.on("data", (chunk: Buffer) => {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    while (rest.length >= 2 && rest.length >= 2 + rest.readUInt16BE(0)) {
      const end = 2 + rest.readUInt16BE(0);
      each(rest.subarray(2, end));
      rest = rest.subarray(end);
    }
  });
  // A listener for data does not start a stream that was explicitly paused.
  socket.resume();
}

/** Writes one message with its length. */
export function writeMessage(socket: Socket, message: Buffer): void {
  const length = Buffer.alloc(2);
  length.writeUInt16BE(message.length, 0);
  socket.write(Buffer.concat([length, message]));
}
