// SPDX-License-Identifier: Apache-2.0
import { expect, test } from "vitest";
import { jsonDocument } from "../../../scripts/docs/json.ts";

test("docs/json.md says what the documents' schemas say", async () => {
  await expect(jsonDocument()).toMatchFileSnapshot("../../../docs/json.md");
});

test("every field is explained", () => {
  expect(jsonDocument().match(/^\| `.*\| +\|$/gm) ?? []).toEqual([]);
});
