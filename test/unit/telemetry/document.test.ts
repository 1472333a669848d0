// SPDX-License-Identifier: Apache-2.0
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { expect, test } from "vitest";
import { metricsDocument } from "../../../src/telemetry/document.ts";

const path = resolve(import.meta.dirname, "../../../docs/metrics.md");

test("docs/metrics.md says what the table says", async () => {
  expect(existsSync(path)).toBe(true);
  await expect(metricsDocument()).toMatchFileSnapshot(path);
});
