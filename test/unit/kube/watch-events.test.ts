// SPDX-License-Identifier: Apache-2.0
import { expect, test } from "vitest";
import { parseWatchEvent, readLines } from "../../../src/kube/watch-events.ts";

async function linesOf(pieces: readonly Buffer[], limit?: number): Promise<string[]> {
  async function* chunks() {
    yield* pieces;
  }
  const lines: string[] = [];
  for await (const line of readLines(chunks(), limit)) lines.push(line);
  return lines;
}

test("every way to cut two lines with multi-byte characters in two gives the same lines", async () => {
  const text = Buffer.from('{"a":"grüße €😀"}\n{"b":"ÿ"}\n');
  for (let cut = 0; cut <= text.length; cut++) {
    expect(await linesOf([text.subarray(0, cut), text.subarray(cut)])).toEqual(['{"a":"grüße €😀"}', '{"b":"ÿ"}']);
  }
});

test("several lines in one chunk, empty lines, carriage returns", async () => {
  expect(await linesOf([Buffer.from("a\n\n\r\nb\r\nc\n")])).toEqual(["a", "b\r", "c"]);
});

test("a line may have as many bytes as the limit, and not one more", async () => {
  expect(await linesOf([Buffer.from("12345\n")], 5)).toEqual(["12345"]);
  await expect(linesOf([Buffer.from("123456\n")], 5)).rejects.toMatchObject({ code: "KUBE_MALFORMED" });
  await expect(linesOf([Buffer.from("123"), Buffer.from("456")], 5)).rejects.toMatchObject({ code: "KUBE_MALFORMED" });
});

test("an end in the middle of a line is a broken connection, not bad data", async () => {
  await expect(linesOf([Buffer.from('a\n{"type')])).rejects.toMatchObject({ code: "KUBE_UNREACHABLE" });
});

test.each([
  "",
  "nonsense",
  "[]",
  "5",
  '{"type":"ADDED"}',
  '{"type":"BORN","object":{}}',
  '{"type":"ADDED","object":{}}',
])("not an event: %j", (line) => {
  expect(() => parseWatchEvent(line)).toThrow(/not a watch event/);
});

test("an event, and an error without a version", () => {
  const event = parseWatchEvent('{"type":"ADDED","object":{"metadata":{"resourceVersion":"7"}}}');
  expect(event).toMatchObject({ type: "ADDED", resourceVersion: "7" });
  expect(parseWatchEvent('{"type":"ERROR","object":{"code":410}}').type).toBe("ERROR");
});
