// SPDX-License-Identifier: Apache-2.0
// Seeded and bounded: the same bytes in every run, so that a failure can be repeated.
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { decodeAck, decodeHello, encodeAdd, encodeDel, encodeKeep } from "../../../src/zds/codec.ts";
import { decodeRequest, encodeAck, encodeHello } from "../../../src/zds/peer-codec.ts";
import { WorkloadRequestSchema, WorkloadResponseSchema, ZdsHelloSchema } from "../../support/gen/zds_pb.ts";
import { seeded } from "./random.ts";

const ROUNDS = 20_000;

function randomBytes(random: () => number, max: number): Buffer {
  return Buffer.from(Array.from({ length: Math.floor(random() * (max + 1)) }, () => Math.floor(random() * 256)));
}

/** Flips, cuts, repeats or inserts a few bytes of a valid message. */
function mutate(random: () => number, message: Buffer): Buffer {
  let bytes = Buffer.from(message);
  for (let edits = 1 + Math.floor(random() * 3); edits > 0; edits--) {
    const at = Math.floor(random() * (bytes.length + 1));
    const kind = Math.floor(random() * 4);
    if (kind === 0 && at < bytes.length) bytes[at] = Math.floor(random() * 256);
    else if (kind === 1) bytes = bytes.subarray(0, at);
    else if (kind === 2) bytes = Buffer.concat([bytes.subarray(0, at), randomBytes(random, 6), bytes.subarray(at)]);
    else bytes = Buffer.concat([bytes, bytes.subarray(at)]);
  }
  return bytes.subarray(0, 1024);
}

function outcome<T>(decode: () => T): { value: T } | "throws" {
  try {
    return { value: decode() };
  } catch (error) {
    if (!(error instanceof Error)) throw new Error("something else than an Error was thrown");
    return "throws";
  }
}

function word(random: () => number): string {
  const alphabet = [..."abcz09-.äß中😀"];
  const length = 1 + Math.floor(random() ** 2 * 300);
  return Array.from({ length }, () => alphabet[Math.floor(random() * alphabet.length)] ?? "").join("");
}

test("whatever a peer sends, hello and ack are read as the generated decoder reads them, or refused", () => {
  const random = seeded(1);
  let accepted = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const seed = [encodeHello(), encodeAck(), encodeAck("failure to start proxy"), encodeAck("ü")][round % 4];
    const input = random() < 0.3 || seed === undefined ? randomBytes(random, 40) : mutate(random, seed);
    const ours = outcome(() => decodeAck(input));
    const theirs = outcome(() => fromBinary(WorkloadResponseSchema, input));
    const hello = outcome(() => decodeHello(input));
    // The generated decoder is laxer (a wrong wire type, a nested message longer than its frame).
    if (ours !== "throws") {
      accepted++;
      expect(theirs).not.toBe("throws");
      if (theirs !== "throws") {
        expect(`${input.toString("hex")} ${theirs.value.payload.value?.error}`).toBe(
          `${input.toString("hex")} ${ours.value}`,
        );
      }
    }
    const reference = outcome(() => fromBinary(ZdsHelloSchema, input));
    if (hello !== "throws" && reference !== "throws") expect(hello.value).toBe(reference.value.version);
  }
  expect(accepted).toBeGreaterThan(ROUNDS / 20);
});

test("whatever arrives at ztunnel's side is read or refused with an Error", () => {
  const random = seeded(2);
  const valid = [
    encodeAdd({ uid: "u", name: "n", namespace: "ns", serviceAccount: "sa" }),
    encodeDel("u"),
    encodeKeep("u"),
  ];
  for (let round = 0; round < ROUNDS; round++) {
    const input = mutate(random, valid[round % valid.length] ?? Buffer.alloc(0));
    const ours = outcome(() => decodeRequest(input));
    const theirs = outcome(() => fromBinary(WorkloadRequestSchema, input));
    if (ours === "throws" || theirs === "throws") continue;
    const { payload } = theirs.value;
    expect(`${payload.case} ${input.toString("hex")}`).toBe(
      `${ours.value.kind === "snapshot_sent" ? "snapshotSent" : ours.value.kind} ${input.toString("hex")}`,
    );
  }
});

test("random workloads come out at the generated decoder as they went in, and never exceed 1024 bytes", () => {
  const random = seeded(3);
  let refused = 0;
  for (let round = 0; round < 5_000; round++) {
    const workload = { uid: word(random), name: word(random), namespace: word(random), serviceAccount: word(random) };
    const message = outcome(() => encodeAdd(workload));
    const { uid, ...workloadInfo } = workload;
    const reference = toBinary(
      WorkloadRequestSchema,
      create(WorkloadRequestSchema, { payload: { case: "add", value: { uid, workloadInfo } } }),
    );
    if (message === "throws") {
      refused++;
      expect(reference.length).toBeGreaterThan(1024);
      continue;
    }
    expect(message.value.equals(reference)).toBe(true);
    expect(message.value.length).toBeLessThanOrEqual(1024);
  }
  expect(refused).toBeGreaterThan(0);
});
