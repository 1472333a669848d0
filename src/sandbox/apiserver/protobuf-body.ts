// SPDX-License-Identifier: Apache-2.0
// kubectl's typed commands (`kubectl create namespace`) send protobuf whatever the server offers.
// Field numbers: k8s.io/apimachinery runtime and meta/v1 generated.proto, k8s.io/api core/v1 generated.proto.
import { BinaryReader } from "@bufbuild/protobuf/wire";
import { ApiFailure } from "./failure.ts";

export const PROTOBUF = "application/vnd.kubernetes.protobuf";

/** Kinds of which the metadata is all that matters here. */
const METADATA_ONLY: ReadonlySet<string> = new Set(["Namespace", "ServiceAccount"]);
const MAGIC = Buffer.from("k8s\0");

type Fields = ReadonlyMap<number, readonly Uint8Array[]>;

/** The JSON form of an encoded object, as far as its metadata goes. @throws ApiFailure 400 or 415. */
export function parseProtobuf(bytes: Buffer): unknown {
  if (!bytes.subarray(0, MAGIC.length).equals(MAGIC)) throw new ApiFailure(400, "the body is no Kubernetes protobuf");
  const unknown = fieldsOf(bytes.subarray(MAGIC.length));
  const typeMeta = fieldsOf(unknown.get(1)?.[0]);
  const kind = text(typeMeta, 2);
  if (kind === "DeleteOptions") return undefined;
  if (!METADATA_ONLY.has(kind)) {
    throw new ApiFailure(415, `a ${kind} is taken as JSON only: write it to a file and use kubectl apply -f`);
  }
  const metadata = fieldsOf(fieldsOf(unknown.get(2)?.[0]).get(1)?.[0]);
  return {
    apiVersion: text(typeMeta, 1),
    kind,
    metadata: {
      name: text(metadata, 1),
      generateName: text(metadata, 2),
      namespace: text(metadata, 3),
      labels: map(metadata, 11),
      annotations: map(metadata, 12),
    },
  };
}

/** Length-delimited fields by number; the others are skipped. */
function fieldsOf(bytes: Uint8Array | undefined): Fields {
  const fields = new Map<number, Uint8Array[]>();
  const reader = new BinaryReader(bytes ?? new Uint8Array());
  try {
    while (reader.pos < reader.len) {
      const [number, wireType] = reader.tag();
      if (wireType === 2) fields.set(number, [...(fields.get(number) ?? []), reader.bytes()]);
      else reader.skip(wireType, number);
    }
  } catch {
    throw new ApiFailure(400, "the protobuf body is cut or damaged");
  }
  return fields;
}

function text(fields: Fields, number: number): string {
  return Buffer.from(fields.get(number)?.at(-1) ?? []).toString("utf8");
}

function map(fields: Fields, number: number): Record<string, string> {
  const entries = (fields.get(number) ?? []).map((bytes) => fieldsOf(bytes));
  return Object.fromEntries(entries.map((entry) => [text(entry, 1), text(entry, 2)]));
}
