// SPDX-License-Identifier: Apache-2.0
import { expect, test } from "vitest";
import { reservedText } from "../../../src/dataplane/reserved-ports.ts";

const DEFAULT = { first: 32_768, last: 60_999 };
const OURS = "537,539,541";

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

test("in a range that begins low, what makes the list ours stays apart", () => {
  expect(reservedText([535, 536, 537, 540, 542, 543], { first: 1, last: 65_535 })).toBe("535,537,539,541,543");
});

test("a quarter of the range stays for the pod's own connections", () => {
  const ports = Array.from({ length: 61 }, (_, index) => 50_000 + index);
  expect(reservedText(ports, { first: 50_000, last: 50_060 })).toBe(`${OURS},50000-50044`);
  expect(size(reservedText([50_000, 50_001], { first: 50_000, last: 50_001 }))).toBe(4);
});
