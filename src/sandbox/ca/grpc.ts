// SPDX-License-Identifier: Apache-2.0
// As much of gRPC over HTTP/2 as one unary method without compression needs.
import { constants, type IncomingHttpHeaders, type ServerHttp2Stream } from "node:http2";
import { messageOf } from "../../core/errors.ts";

const { HTTP2_HEADER_STATUS, HTTP2_HEADER_CONTENT_TYPE, HTTP2_HEADER_METHOD, HTTP2_HEADER_PATH } = constants;
const CONTENT_TYPE = "application/grpc";
const PREFIX = 5;
const MAX_REQUEST = 64 << 10;
const RECEIVE_TIMEOUT_MS = 5000;

/** Codes of gRPC (its status codes document). */
export const GRPC = { invalidArgument: 3, unimplemented: 12 } as const;

export class GrpcError extends Error {
  constructor(
    readonly code: number,
    message: string,
  ) {
    super(message);
  }
}

/** Serves one call; whatever `handle` throws is told to the client. */
export function serveUnary(
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders,
  path: string,
  handle: (request: Uint8Array) => Uint8Array,
): void {
  stream.on("error", () => stream.destroy());
  stream.setTimeout(RECEIVE_TIMEOUT_MS, () => stream.close(constants.NGHTTP2_CANCEL));
  const chunks: Buffer[] = [];
  let size = 0;
  stream.on("data", (chunk: Buffer) => {
    size += chunk.length;
    if (size > MAX_REQUEST) stream.close(constants.NGHTTP2_ENHANCE_YOUR_CALM);
    else chunks.push(chunk);
  });
  stream.on("end", () => {
    if (stream.destroyed || stream.closed) return;
    try {
      if (headers[HTTP2_HEADER_METHOD] !== "POST" || headers[HTTP2_HEADER_PATH] !== path) {
        throw new GrpcError(GRPC.unimplemented, `no method ${headers[HTTP2_HEADER_PATH]}`);
      }
      answer(stream, handle(messageIn(Buffer.concat(chunks))));
    } catch (error) {
      refuse(stream, error instanceof GrpcError ? error.code : GRPC.invalidArgument, messageOf(error));
    }
  });
}

function messageIn(body: Buffer): Uint8Array {
  if (body.length < PREFIX || body.readUInt32BE(1) !== body.length - PREFIX) {
    throw new GrpcError(GRPC.invalidArgument, "the body is not one gRPC message");
  }
  if (body[0] !== 0) throw new GrpcError(GRPC.unimplemented, "compressed messages are not understood");
  return body.subarray(PREFIX);
}

function answer(stream: ServerHttp2Stream, message: Uint8Array): void {
  const head = Buffer.alloc(PREFIX);
  head.writeUInt32BE(message.length, 1);
  stream.respond({ [HTTP2_HEADER_STATUS]: 200, [HTTP2_HEADER_CONTENT_TYPE]: CONTENT_TYPE }, { waitForTrailers: true });
  stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
  stream.end(Buffer.concat([head, message]));
}

function refuse(stream: ServerHttp2Stream, code: number, message: string): void {
  stream.respond(
    {
      [HTTP2_HEADER_STATUS]: 200,
      [HTTP2_HEADER_CONTENT_TYPE]: CONTENT_TYPE,
      "grpc-status": String(code),
      "grpc-message": percentEncoded(message.slice(0, 512)),
    },
    { endStream: true },
  );
}

/** As the protocol wants it: every byte but printable ASCII, and the percent sign. */
function percentEncoded(text: string): string {
  const hex = (byte: number) => `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  return Array.from(Buffer.from(text), (byte) =>
    byte >= 0x20 && byte <= 0x7e && byte !== 0x25 ? String.fromCharCode(byte) : hex(byte),
  ).join("");
}
