// SPDX-License-Identifier: Apache-2.0
import { expect, test } from "vitest";
import {
  changeText,
  checkedUid,
  planProbes,
  probesComment,
  tableText,
} from "../../../src/dataplane/probe-exemption/plan.ts";

const options = { uid: undefined, ipv4: "169.254.7.127", ipv6: "fd16:9254:7127:1337:ffff:ffff:ffff:ffff" };

test("the whole table", async () => {
  const owners = new Map([
    ["10.0.0.1", "uid-1"],
    ["fd00::1", "uid-1"],
    ["10.0.0.2", "uid-2"],
  ]);
  await expect(tableText(planProbes(options), owners)).toMatchFileSnapshot("golden/probes-host.nft");
  await expect(tableText(planProbes({ ...options, uid: 0 }), new Map())).toMatchFileSnapshot(
    "golden/probes-kubelet.nft",
  );
});

test("the comment changes with the rules", () => {
  const comments = [options, { ...options, uid: 0 }, { ...options, ipv4: "10.0.0.1" }].map((o) =>
    probesComment(planProbes(o)),
  );
  expect(new Set(comments).size).toBe(3);
});

test("only what differs is written, and a new owner replaces the element in one transaction", () => {
  const present = new Map([
    ["10.0.0.1", "a"],
    ["10.0.0.2", "a"],
    ["10.0.0.3", "a"],
  ]);
  const wanted = new Map([
    ["10.0.0.1", "a"],
    ["10.0.0.2", "b"],
    ["10.0.0.3", undefined],
    ["10.0.0.4", undefined],
    ["fd00::1", "c"],
  ]);
  expect(changeText(present, wanted).split("\n")).toEqual([
    "delete element inet ambient-cni-probes pods-v4 { 10.0.0.2 }",
    'add element inet ambient-cni-probes pods-v4 { 10.0.0.2 comment "b" }',
    "delete element inet ambient-cni-probes pods-v4 { 10.0.0.3 }",
    'add element inet ambient-cni-probes pods-v6 { fd00::1 comment "c" }',
    "",
  ]);
  expect(changeText(present, new Map([["10.0.0.1", "a"]]))).toBe("");
});

test.each(["", 'a"b', "a b", "a;b", "a\n", "x".repeat(64), "é"])("%j is no uid", (uid) => {
  expect(() => checkedUid(uid)).toThrow("not a pod uid");
});
