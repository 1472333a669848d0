// SPDX-License-Identifier: Apache-2.0
import { expect, test } from "vitest";
import { DEFAULT_ENABLEMENT_SELECTOR, parseEnablementSelectors } from "../../../src/core/config/selectors.ts";

const everything = { requirements: [] };
const inOne = (key: string, value: string) => ({ requirements: [{ key, operator: "In", values: [value] }] });

test.each([
  ["nothing", "", []],
  ["an empty list", "[]", []],
  ["null", "null", []],
  ["a comment", "# none\n", []],
  ["an empty entry matches everything", "- {}", [{ podSelector: everything, namespaceSelector: everything }]],
  [
    "null selectors match everything",
    "- podSelector:\n  namespaceSelector: null",
    [{ podSelector: everything, namespaceSelector: everything }],
  ],
  [
    "matchLabels and matchExpressions must both hold",
    "- podSelector:\n    matchLabels: {a: b}\n    matchExpressions: [{key: c/d, operator: NotIn, values: [x, z]}]",
    [
      {
        podSelector: {
          requirements: [
            { key: "a", operator: "In", values: ["b"] },
            { key: "c/d", operator: "NotIn", values: ["x", "z"] },
          ],
        },
        namespaceSelector: everything,
      },
    ],
  ],
  [
    "Exists and DoesNotExist",
    "- namespaceSelector:\n    matchExpressions: [{key: a, operator: Exists}, {key: b, operator: DoesNotExist, values: []}]",
    [
      {
        podSelector: everything,
        namespaceSelector: {
          requirements: [
            { key: "a", operator: "Exists", values: [] },
            { key: "b", operator: "DoesNotExist", values: [] },
          ],
        },
      },
    ],
  ],
  [
    "an empty label value",
    '- podSelector: {matchLabels: {a: ""}}',
    [{ podSelector: inOne("a", ""), namespaceSelector: everything }],
  ],
  [
    "booleans and numbers are text",
    "- podSelector: {matchLabels: {a: true}}",
    [{ podSelector: inOne("a", "true"), namespaceSelector: everything }],
  ],
  [
    "YAML 1.1 booleans, as upstream reads them",
    "- podSelector: {matchLabels: {a: on}}",
    [{ podSelector: inOne("a", "true"), namespaceSelector: everything }],
  ],
  [
    "numbers keep their text",
    "- podSelector: {matchLabels: {a: 010}}",
    [{ podSelector: inOne("a", "010"), namespaceSelector: everything }],
  ],
  [
    "JSON is YAML",
    '[{"podSelector":{"matchLabels":{"a":"b"}}}]',
    [{ podSelector: inOne("a", "b"), namespaceSelector: everything }],
  ],
  [
    "an alias",
    "- podSelector: &s {matchLabels: {a: b}}\n  namespaceSelector: *s",
    [{ podSelector: inOne("a", "b"), namespaceSelector: inOne("a", "b") }],
  ],
])("%s", (_, text, expected) => {
  expect(parseEnablementSelectors(text)).toEqual(expected);
});

test.each([
  ["podSelector: {}", /line 1, column 1: the document: must be a list/],
  ["- [", /line 1, column \d+: /],
  [
    "- podSelector: {matchLabel: {a: b}}",
    /line 1, column 17: \[0\]\.podSelector: unknown field "matchLabel", known are matchLabels, matchExpressions/,
  ],
  ["- {}\n- podSelektor: {}", /line 2, column 3: \[1\]: unknown field "podSelektor"/],
  ["- text", /\[0\]: must be a mapping/],
  ["- podSelector: []", /\[0\]\.podSelector: must be a mapping/],
  ["- podSelector: {matchLabels: [a]}", /matchLabels: must be a mapping/],
  ["- podSelector: {matchLabels: {a: [b]}}", /matchLabels\[a\]: must be text/],
  ["- podSelector: {matchLabels: {a: b, a: c}}", /line 1, column \d+: .*unique/],
  ["- podSelector: {matchLabels: {'a b': c}}", /"a b" is no label key/],
  ["- podSelector: {matchLabels: {'A_b/c': d}}", /"A_b\/c" is no label key: the part before '\/'/],
  ["- podSelector: {matchLabels: {'/c': d}}", /is no label key/],
  ["- podSelector: {matchLabels: {a/b/c: d}}", /is no label key/],
  [`- podSelector: {matchLabels: {${"k".repeat(64)}: d}}`, /longer than 63/],
  ["- podSelector: {matchLabels: {a: 'b c'}}", /"b c" is no label value/],
  [`- podSelector: {matchLabels: {a: ${"v".repeat(64)}}}`, /longer than 63/],
  ["- podSelector: {matchExpressions: {}}", /matchExpressions: must be a list/],
  ["- podSelector: {matchExpressions: [{operator: Exists}]}", /matchExpressions\[0\]\.key: missing/],
  ["- podSelector: {matchExpressions: [{key: a}]}", /operator: missing/],
  [
    "- podSelector: {matchExpressions: [{key: a, operator: in, values: [b]}]}",
    /"in" is none of In, NotIn, Exists, DoesNotExist/,
  ],
  ["- podSelector: {matchExpressions: [{key: a, operator: In}]}", /values: must not be empty with In/],
  ["- podSelector: {matchExpressions: [{key: a, operator: NotIn, values: []}]}", /must not be empty with NotIn/],
  ["- podSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}", /must be empty with Exists/],
  ["- podSelector: {matchExpressions: [{key: a, operator: In, values: b}]}", /values: must be a list/],
  ["- podSelector: {matchExpressions: [{key: a, operator: In, values: [{}]}]}", /values\[0\]: must be text/],
  ["- podSelector: *nowhere", /line 1, column \d+: /],
  ["--- []\n--- []", /line 2, column 1: /],
])("%s", (text, message) => {
  expect(() => parseEnablementSelectors(text)).toThrow(message);
});

test("bounded: bytes and items, aliases included", () => {
  expect(() => parseEnablementSelectors(`# ${"x".repeat(70_000)}`)).toThrow(/larger than 65536 bytes/);
  expect(() => parseEnablementSelectors("- {}\n".repeat(1001))).toThrow(/more than 1000 items/);
  const many = `[${Array.from({ length: 40 }, (_, i) => `v${i}`).join(",")}]`;
  const bomb = `- podSelector: {matchExpressions: [{key: a, operator: In, values: &v ${many}}]}\n`;
  const uses = "- podSelector: {matchExpressions: [{key: a, operator: In, values: *v}]}\n".repeat(40);
  expect(() => parseEnablementSelectors(bomb + uses)).toThrow(/more than 1000 items/);
});

test("a self-referring alias is an error, not a hang", () => {
  expect(() => parseEnablementSelectors("- &a\n  podSelector: *a")).toThrow(/unknown field|must be/);
});

test("the default is what its text says, which is not parsed each time", () => {
  const parsed = parseEnablementSelectors(`${DEFAULT_ENABLEMENT_SELECTOR}# read\n`);
  expect(parseEnablementSelectors(DEFAULT_ENABLEMENT_SELECTOR)).toEqual(parsed);
});
