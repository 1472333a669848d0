// SPDX-License-Identifier: Apache-2.0
import { expect, test } from "vitest";
import { matchesLabels, type SelectorOperator, selectorText } from "../../../src/core/selector.ts";

const one = (operator: SelectorOperator, values: string[] = [], key = "k") => ({
  requirements: [{ key, operator, values }],
});

test.each([
  [one("In", ["a", "b"]), { k: "a" }, true],
  [one("In", ["a", "b"]), { k: "c" }, false],
  [one("In", ["a"]), {}, false],
  [one("In", [""]), { k: "" }, true],
  [one("In", [""]), {}, false],
  [one("NotIn", ["a"]), { k: "a" }, false],
  [one("NotIn", ["a"]), { k: "b" }, true],
  [one("NotIn", ["a"]), {}, true],
  [one("Exists"), { k: "" }, true],
  [one("Exists"), {}, false],
  [one("DoesNotExist"), { k: "" }, false],
  [one("DoesNotExist"), {}, true],
  [one("Exists", [], "constructor"), {}, false],
  [one("DoesNotExist", [], "toString"), {}, true],
  [{ requirements: [] }, {}, true],
])("%j on %j: %s", (selector, labels, expected) => {
  expect(matchesLabels(selector, labels)).toBe(expected);
});

test("every requirement must hold", () => {
  const both = { requirements: [...one("In", ["a"]).requirements, ...one("DoesNotExist", [], "x").requirements] };
  expect(matchesLabels(both, { k: "a" })).toBe(true);
  expect(matchesLabels(both, { k: "a", x: "" })).toBe(false);
});

test("as text", () => {
  const all = {
    requirements: [one("In", ["a", "b"]), one("NotIn", ["c"]), one("Exists"), one("DoesNotExist")].flatMap(
      (s) => s.requirements,
    ),
  };
  expect(selectorText(all)).toBe("k in (a,b),k notin (c),k,!k");
  expect(selectorText({ requirements: [] })).toBe("everything");
});
