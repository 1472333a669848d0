// SPDX-License-Identifier: Apache-2.0
// ztunnel's side of ZDS (zds.proto), for the sandbox's stand-in and the tests. The agent never loads it.
import { type BinaryReader, BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { lengthTag, readerOf, skipUnknown, writeString, ZDS_VERSION } from "./codec.ts";

export interface ZdsWorkloadInfo {
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
}

/** One message of the agent. `info` is undefined when it is missing, which makes ztunnel exit. */
export type ZdsRequest =
  | { readonly kind: "add"; readonly uid: string; readonly info: ZdsWorkloadInfo | undefined }
  | { readonly kind: "keep"; readonly uid: string }
  | { readonly kind: "del"; readonly uid: string }
  | { readonly kind: "snapshot_sent" };

/** ztunnel's first message. */
export function encodeHello(version: number = ZDS_VERSION): Buffer {
  const writer = new BinaryWriter();
  if (version !== 0) writer.uint32(8).int32(version);
  return Buffer.from(writer.finish());
}

/** The answer to one request; an empty text says that it was done. */
export function encodeAck(error = ""): Buffer {
  const writer = new BinaryWriter().uint32(lengthTag(1)).fork();
  writeString(writer, 1, error);
  return Buffer.from(writer.join().finish());
}

/**
 * Reads one message of the agent.
 * @throws Error when it is no protobuf message or has no payload that ztunnel knows.
 */
export function decodeRequest(message: Uint8Array): ZdsRequest {
  const reader = readerOf(message);
  let request: ZdsRequest | undefined;
  while (reader.pos < reader.len) {
    const [field, type] = reader.tag();
    if (type !== WireType.LengthDelimited) skipUnknown(reader, field, type, [1, 2, 3, 5]);
    else if (field === 1) request = decodeAdd(reader.bytes());
    else if (field === 2) request = { kind: "del", uid: decodeStrings(reader.bytes(), [2]).get(2) ?? "" };
    else if (field === 3) request = decodeSnapshotSent(reader.bytes());
    else if (field === 5) request = { kind: "keep", uid: decodeStrings(reader.bytes(), [1]).get(1) ?? "" };
    else reader.skip(type, field);
  }
  if (request === undefined) throw new Error("no payload");
  return request;
}

function decodeAdd(body: Uint8Array): ZdsRequest {
  const reader = readerOf(body);
  let uid = "";
  let info: ZdsWorkloadInfo | undefined;
  while (reader.pos < reader.len) {
    const [field, type] = reader.tag();
    if (field === 1 && type === WireType.LengthDelimited) uid = reader.string();
    else if (field === 2 && type === WireType.LengthDelimited) info = decodeInfo(reader);
    else skipUnknown(reader, field, type, [1, 2]);
  }
  return { kind: "add", uid, info };
}

function decodeInfo(reader: BinaryReader): ZdsWorkloadInfo {
  const strings = decodeStrings(reader.bytes(), [1, 2, 3]);
  return { name: strings.get(1) ?? "", namespace: strings.get(2) ?? "", serviceAccount: strings.get(3) ?? "" };
}

function decodeSnapshotSent(body: Uint8Array): ZdsRequest {
  const reader = readerOf(body);
  while (reader.pos < reader.len) {
    const [field, type] = reader.tag();
    reader.skip(type, field);
  }
  return { kind: "snapshot_sent" };
}

function decodeStrings(body: Uint8Array, fields: readonly number[]): Map<number, string> {
  const strings = new Map<number, string>();
  const reader = readerOf(body);
  while (reader.pos < reader.len) {
    const [field, type] = reader.tag();
    if (fields.includes(field) && type === WireType.LengthDelimited) strings.set(field, reader.string());
    else skipUnknown(reader, field, type, fields);
  }
  return strings;
}
