// SPDX-License-Identifier: Apache-2.0
import { expect, test } from "vitest";
import { readList } from "../../../src/kube/list-items.ts";

async function read(pieces: readonly Buffer[]) {
  async function* chunks() {
    yield* pieces;
  }
  const items: unknown[] = [];
  const rest = await readList(chunks(), (item) => items.push(item));
  return { items, rest };
}

const TRICKY = {
  kind: "PodList",
  note: 'items":[{"a":1}],"',
  itemsish: [{ not: "an item" }],
  nested: { items: [{ not: "an item" }] },
  metadata: { resourceVersion: "7", continue: 'abc"]}' },
  items: [
    {},
    { text: 'a "quoted" \\ [brace] {curly} \\" €😀', deep: { items: [1, [2, { x: null }]] } },
    { items: [{ a: 1 }, { b: [] }], empty: "" },
  ],
  after: [{ items: [] }, "items"],
};

test.each([0, 2])(
  "every way to cut a list in two gives the same items and the same rest (indent %d)",
  async (indent) => {
    const text = Buffer.from(JSON.stringify(TRICKY, null, indent));
    const wanted = { items: TRICKY.items, rest: { ...TRICKY, items: [] } };
    for (let cut = 0; cut <= text.length; cut++) {
      expect(await read([text.subarray(0, cut), text.subarray(cut)])).toEqual(wanted);
    }
  },
);

test("one byte at a time", async () => {
  const text = Buffer.from(JSON.stringify(TRICKY));
  const { items } = await read([...text].map((byte) => Buffer.from([byte])));
  expect(items).toEqual(TRICKY.items);
});

test.each([
  ['{"metadata":{},"items":[]}', []],
  ['{"items":null,"metadata":{}}', []],
  ['{"items":{"a":[{}]},"metadata":{}}', []],
  ['{"note":"items","x":[{"a":1}]}', []],
  ['{"items":[[1],[2]]}', [[1], [2]]],
  ['{"items":[{"a":1}],"items2":[{"b":1}]}', [{ a: 1 }]],
])("%s", async (text, items) => {
  expect((await read([Buffer.from(text)])).items).toEqual(items);
});

test.each([
  "",
  "nonsense",
  '{"items":[{"a":1}',
  '{"items":[{"a":}]}',
  '{"items":[{]}]}',
  '{"items":[{"a":1}]',
  '{"items":[5,{"a":1}],}',
  "]}]}{[",
  '{"items":[}',
])("no list: %j", async (text) => {
  await expect(read([Buffer.from(text)])).rejects.toMatchObject({ code: "KUBE_MALFORMED" });
});

test("an item, or a rest, larger than anything sensible", async () => {
  const block = Buffer.alloc(1024 * 1024, 0x20);
  const item = [Buffer.from('{"items":[{'), ...Array.from({ length: 9 }, () => block)];
  await expect(read(item)).rejects.toThrow(/an item of the list has more than/);
  await expect(read([Buffer.from("{"), block, block])).rejects.toThrow(/without its items has more than/);
});

test("random documents come through as JSON.parse would have them", async () => {
  let seed = 12345;
  const random = (below: number) => {
    seed = (seed * 1103515245 + 12345) % 2 ** 31;
    return seed % below;
  };
  const value = (depth: number): unknown => {
    const kind = random(depth > 3 ? 4 : 6);
    if (kind === 0) return random(1000);
    if (kind === 1) return ['"', "\\", "items", "{[", "]}", "ü€", "\u0000\n"][random(7)];
    if (kind === 2) return null;
    if (kind === 3) return random(2) === 0;
    const members = Array.from({ length: random(4) }, () => value(depth + 1));
    if (kind === 4) return members;
    return Object.fromEntries(members.map((member, index) => [["items", "a", '"', "metadata"][index] ?? "b", member]));
  };
  for (let round = 0; round < 500; round++) {
    const items = Array.from({ length: random(5) }, () => ({ v: value(0) }));
    const document = { first: value(1), items, last: value(1) };
    const text = Buffer.from(JSON.stringify(document, null, random(3)));
    const cuts = [random(text.length), random(text.length)].sort((a, b) => a - b);
    const pieces = [text.subarray(0, cuts[0]), text.subarray(cuts[0], cuts[1]), text.subarray(cuts[1])];
    expect(await read(pieces)).toEqual({ items, rest: { ...document, items: [] } });
  }
});
