// SPDX-License-Identifier: Apache-2.0
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { expect, test } from "vitest";
import { configDocument } from "../../../src/core/config/document.ts";

const path = resolve(import.meta.dirname, "../../../docs/config.md");

test("docs/config.md says what the table says", async () => {
  expect(existsSync(path)).toBe(true);
  await expect(configDocument()).toMatchFileSnapshot(path);
});
