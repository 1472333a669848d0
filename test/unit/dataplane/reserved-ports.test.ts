// SPDX-License-Identifier: Apache-2.0
import { expect, test } from "vitest";
import { reservedText } from "../../../src/dataplane/reserved-ports.ts";

const DEFAULT = { first: 32_768, last: 60_999 };
const OURS = "1337,15001,15006,15008,15053";

/** How many ports a list has. */
function size(text: string): number {
  return text
    .split(",")
    .map((run) => run.split("-").map(Number))
    .reduce((sum, [first = 0, last = first]) => sum + last - first + 1, 0);
}

test.each([
  ["no port", [], ""],
  ["none in the range", [80, 32_767, 61_000], ""],
  ["one", [40_000], `${OURS},40000`],
  [
    "as the kernel shows them: sorted, each once, neighbours together",
    [40_002, 60_999, 40_001, 40_002, 80],
    `${OURS},40001-40002,60999`,
  ],
])("%s", (_, ports, text) => {
  expect(reservedText(ports, DEFAULT)).toBe(text);
});

test("a range that has the list's own ports in it", () => {
  expect(reservedText([1336, 15_002, 15_007], { first: 1024, last: 65_535 })).toBe(
    "1336-1337,15001-15002,15006-15008,15053",
  );
});

test("a quarter of the range stays for the pod's own connections", () => {
  const ports = Array.from({ length: 61 }, (_, index) => 50_000 + index);
  expect(reservedText(ports, { first: 50_000, last: 50_060 })).toBe(`${OURS},50000-50044`);
  expect(size(reservedText([50_000, 50_001], { first: 50_000, last: 50_001 }))).toBe(6);
});
