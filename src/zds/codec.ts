// SPDX-License-Identifier: Apache-2.0
// The agent's side of ZDS (zds.proto): what it sends to ztunnel and what it reads from it. Written on
// the wire primitives of @bufbuild/protobuf, because its reflective runtime adds 7 MB to the agent's
// resident set; the tests compare every message with generated code.
import { BinaryReader, BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { ZDS_MAX_MESSAGE } from "../core/constants.ts";
import { AgentError } from "../core/errors.ts";
import type { Workload } from "../core/ports/ztunnel.ts";

/** The only version of ZDS there is. */
export const ZDS_VERSION = 1;

const strictUtf8 = new TextDecoder("utf-8", { fatal: true });

/** Tag of a length-delimited field. */
export function lengthTag(field: number): number {
  return (field << 3) | WireType.LengthDelimited;
}

/** A reader that refuses strings that are not UTF-8, as ztunnel's decoder does. */
export function readerOf(message: Uint8Array): BinaryReader {
  return new BinaryReader(message, (bytes) => strictUtf8.decode(bytes));
}

/**
 * Steps over a field that is not ours; a known one of another wire type is refused, as ztunnel does.
 * @throws Error
 */
export function skipUnknown(reader: BinaryReader, field: number, type: WireType, known: readonly number[]): void {
  if (known.includes(field)) throw new Error(`field ${field} has wire type ${type}`);
  reader.skip(type, field);
}

/** proto3 leaves a string out when it is empty. */
export function writeString(writer: BinaryWriter, field: number, value: string): void {
  if (value !== "") writer.uint32(lengthTag(field)).string(value);
}

function writeUid(writer: BinaryWriter, field: number, uid: string): void {
  // An empty uid would encode to an empty arm, which ztunnel takes for a workload named "".
  if (uid === "") throw new AgentError("ZDS_MESSAGE", "a ZDS message needs a pod uid, got an empty one");
  // TextEncoder writes U+FFFD for a lone surrogate: two uids would become one.
  if (/\p{Surrogate}/u.test(uid)) {
    throw new AgentError("ZDS_MESSAGE", `the pod uid ${JSON.stringify(uid)} is not well-formed text`);
  }
  writeString(writer, field, uid);
}

function finish(writer: BinaryWriter, what: string): Buffer {
  const bytes = writer.finish();
  if (bytes.length > ZDS_MAX_MESSAGE) {
    throw new AgentError(
      "ZDS_MESSAGE",
      `the ZDS message ${what} takes ${bytes.length} bytes, ztunnel reads at most ${ZDS_MAX_MESSAGE}`,
      "Shorten the names of the pod, its namespace and its service account.",
    );
  }
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Long names are quoted in errors by their beginning only. */
function brief(text: string): string {
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}

/**
 * `add`: start a proxy in the netns whose fd travels beside it. Always carries workload_info, ztunnel
 * exits without it. @throws AgentError ZDS_MESSAGE when a name is missing or the message is too long.
 */
export function encodeAdd(workload: Workload): Buffer {
  const what = `add ${brief(workload.namespace)}/${brief(workload.name)} (uid ${brief(workload.uid)})`;
  if (workload.name === "" || workload.namespace === "") {
    throw new AgentError("ZDS_MESSAGE", `the ZDS message ${what} lacks the pod's name or namespace`);
  }
  const writer = new BinaryWriter().uint32(lengthTag(1)).fork();
  writeUid(writer, 1, workload.uid);
  writer.uint32(lengthTag(2)).fork();
  writeString(writer, 1, workload.name);
  writeString(writer, 2, workload.namespace);
  writeString(writer, 3, workload.serviceAccount);
  return finish(writer.join().join(), what);
}

/** `keep`: leave the running proxy of this uid alone. Legal only before `snapshot_sent`. @throws as encodeAdd. */
export function encodeKeep(uid: string): Buffer {
  const writer = new BinaryWriter().uint32(lengthTag(5)).fork();
  writeUid(writer, 1, uid);
  return finish(writer.join(), `keep ${brief(uid)}`);
}

/** `del`: end the proxy of this uid at once. The uid is field 2 here. @throws as encodeAdd. */
export function encodeDel(uid: string): Buffer {
  const writer = new BinaryWriter().uint32(lengthTag(2)).fork();
  writeUid(writer, 2, uid);
  return finish(writer.join(), `del ${brief(uid)}`);
}

/** `snapshot_sent`: end every proxy that this connection has neither added nor kept. */
export function encodeSnapshotSent(): Buffer {
  return finish(new BinaryWriter().uint32(lengthTag(3)).fork().join(), "snapshot_sent");
}

/**
 * Reads ztunnel's hello; returns its version number, 0 when it names none.
 * @throws Error when the bytes are no protobuf message of that shape.
 */
export function decodeHello(message: Uint8Array): number {
  const reader = readerOf(message);
  let version = 0;
  while (reader.pos < reader.len) {
    const [field, type] = reader.tag();
    if (field === 1 && type === WireType.Varint) version = reader.int32();
    else skipUnknown(reader, field, type, [1]);
  }
  return version;
}

/**
 * Reads ztunnel's response; returns the text of its error, empty when it did what it was asked.
 * @throws Error when the bytes are no protobuf message, or hold no ack (an arm that we don't know).
 */
export function decodeAck(message: Uint8Array): string {
  const reader = readerOf(message);
  let error: string | undefined;
  while (reader.pos < reader.len) {
    const [field, type] = reader.tag();
    if (field === 1 && type === WireType.LengthDelimited) error = decodeAckBody(reader.bytes()) ?? error ?? "";
    else skipUnknown(reader, field, type, [1]);
  }
  if (error === undefined) throw new Error("the response holds no ack");
  return error;
}

function decodeAckBody(body: Uint8Array): string | undefined {
  const reader = readerOf(body);
  let error: string | undefined;
  while (reader.pos < reader.len) {
    const [field, type] = reader.tag();
    if (field === 1 && type === WireType.LengthDelimited) error = reader.string();
    else skipUnknown(reader, field, type, [1]);
  }
  return error;
}
