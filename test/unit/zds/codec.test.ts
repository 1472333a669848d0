// SPDX-License-Identifier: Apache-2.0
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { AgentError } from "../../../src/core/errors.ts";
import {
  decodeAck,
  decodeHello,
  encodeAdd,
  encodeDel,
  encodeKeep,
  encodeSnapshotSent,
} from "../../../src/zds/codec.ts";
import { decodeRequest, encodeAck, encodeHello } from "../../../src/zds/peer-codec.ts";
import { WorkloadRequestSchema, WorkloadResponseSchema, ZdsHelloSchema } from "../../support/gen/zds_pb.ts";

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");
const bytes = (text: string) => Buffer.from(text.replaceAll(/[^0-9a-f]/g, ""), "hex");
const u1 = { uid: "u1", name: "n", namespace: "ns", serviceAccount: "sa" };

describe("the byte table of the protocol", () => {
  test.each([
    ["hello", encodeHello(), "08 01"],
    ["add", encodeAdd(u1), "0a 11 | 0a 02 75 31 | 12 0b 0a 01 6e 12 02 6e 73 1a 02 73 61"],
    ["del", encodeDel("u1"), "12 04 12 02 75 31"],
    ["snapshot_sent", encodeSnapshotSent(), "1a 00"],
    ["keep", encodeKeep("u1"), "2a 04 0a 02 75 31"],
    ["ack ok", encodeAck(), "0a 00"],
    ["ack error", encodeAck("x"), "0a 03 0a 01 78"],
  ])("%s", (_name, message, expected) => {
    expect(hex(message)).toBe(hex(bytes(expected)));
  });

  test("reads what ztunnel sends", () => {
    expect(decodeHello(bytes("08 01"))).toBe(1);
    expect(decodeHello(bytes(""))).toBe(0);
    expect(decodeHello(bytes("08 02"))).toBe(2);
    expect(decodeAck(bytes("0a 00"))).toBe("");
    expect(decodeAck(bytes("0a 03 0a 01 78"))).toBe("x");
  });

  test("unknown fields are skipped, an unknown arm is no ack", () => {
    expect(decodeHello(bytes("08 01 52 02 68 69"))).toBe(1);
    expect(decodeAck(bytes("0a 06 0a 01 78 12 01 79 50 07"))).toBe("x");
    expect(() => decodeAck(bytes("12 00"))).toThrow("holds no ack");
    expect(() => decodeAck(bytes(""))).toThrow("holds no ack");
  });
});

describe("agreement with the code that buf generates from zds.proto", () => {
  const names = ["n", "ä", "名前", "a".repeat(253)];

  test("every request", () => {
    for (const name of names) {
      for (const serviceAccount of ["", "sa"]) {
        const workload = { uid: `uid-${name}`, name, namespace: "ns", serviceAccount };
        const { uid } = workload;
        const workloadInfo = { name, namespace: "ns", serviceAccount };
        const generated = (payload: Parameters<typeof create<typeof WorkloadRequestSchema>>[1]) =>
          hex(toBinary(WorkloadRequestSchema, create(WorkloadRequestSchema, payload)));
        expect(hex(encodeAdd(workload))).toBe(generated({ payload: { case: "add", value: { uid, workloadInfo } } }));
        expect(hex(encodeKeep(uid))).toBe(generated({ payload: { case: "keep", value: { uid } } }));
        expect(hex(encodeDel(uid))).toBe(generated({ payload: { case: "del", value: { uid } } }));
        expect(decodeRequest(encodeAdd(workload))).toEqual({ kind: "add", uid, info: workloadInfo });
        expect(decodeRequest(encodeKeep(uid))).toEqual({ kind: "keep", uid });
        expect(decodeRequest(encodeDel(uid))).toEqual({ kind: "del", uid });
      }
    }
    const sent = create(WorkloadRequestSchema, { payload: { case: "snapshotSent", value: {} } });
    expect(hex(encodeSnapshotSent())).toBe(hex(toBinary(WorkloadRequestSchema, sent)));
    expect(decodeRequest(encodeSnapshotSent())).toEqual({ kind: "snapshot_sent" });
  });

  test("every response", () => {
    for (const error of ["", "x", "failure to start proxy : ü", "e".repeat(900)]) {
      const generated = toBinary(
        WorkloadResponseSchema,
        create(WorkloadResponseSchema, { payload: { case: "ack", value: { error } } }),
      );
      expect(decodeAck(generated)).toBe(error);
      expect(hex(encodeAck(error))).toBe(hex(generated));
    }
    for (const version of [0, 1, 2, 77]) {
      const generated = toBinary(ZdsHelloSchema, create(ZdsHelloSchema, { version }));
      expect(decodeHello(generated)).toBe(version);
      expect(hex(encodeHello(version))).toBe(hex(generated));
    }
    expect(fromBinary(WorkloadResponseSchema, encodeAck("x")).payload.value?.error).toBe("x");
  });
});

describe("what would end ztunnel is never encoded", () => {
  const fails = (encode: () => Buffer): AgentError => {
    try {
      encode();
    } catch (error) {
      if (error instanceof AgentError) return error;
      throw error;
    }
    throw new Error("it was encoded");
  };

  test("a message of exactly 1024 bytes passes, 1025 don't", () => {
    const spare = 1024 - encodeAdd({ ...u1, name: "n".repeat(300) }).length;
    expect(encodeAdd({ ...u1, name: "n".repeat(300 + spare) }).length).toBe(1024);
    const error = fails(() => encodeAdd({ ...u1, name: "n".repeat(301 + spare) }));
    expect(error.code).toBe("ZDS_MESSAGE");
    expect(error.message).toMatch(
      /^the ZDS message add ns\/n{80}… \(uid u1\) takes 1025 bytes, ztunnel reads at most 1024$/,
    );
  });

  test("over-long uids of keep and del", () => {
    expect(fails(() => encodeKeep("u".repeat(1024))).message).toContain("takes 1030 bytes");
    expect(fails(() => encodeDel("u".repeat(5000))).code).toBe("ZDS_MESSAGE");
  });

  test("empty and malformed names", () => {
    expect(fails(() => encodeAdd({ ...u1, uid: "" })).message).toContain("needs a pod uid");
    expect(fails(() => encodeKeep("")).code).toBe("ZDS_MESSAGE");
    expect(fails(() => encodeDel("")).code).toBe("ZDS_MESSAGE");
    expect(fails(() => encodeAdd({ ...u1, name: "" })).message).toContain("lacks the pod's name or namespace");
    expect(fails(() => encodeAdd({ ...u1, namespace: "" })).code).toBe("ZDS_MESSAGE");
    expect(fails(() => encodeDel("a\ud800b")).message).toContain("not well-formed");
    expect(encodeDel("😀").toString("hex")).toContain("f09f9880");
  });
});
