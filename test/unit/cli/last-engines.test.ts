// SPDX-License-Identifier: Apache-2.0
import { writeFileSync } from "node:fs";
import { expect, test } from "vitest";
import { forgetEngines, keepEngines, lastEngines } from "../../../src/cli/last-engines.ts";
import { ENGINES } from "../../fixtures/reports.ts";
import { ScratchDir } from "../../support/scratch-dir.ts";

const KEPT = { bootId: "boot", version: "1.0.0" };

test("what self-tests have shown is known until the node boots, the version changes or nobody follows", async () => {
  using dir = new ScratchDir();
  expect(await lastEngines(dir.path, KEPT)).toBeUndefined();
  await keepEngines(dir.path, KEPT, ENGINES);
  expect(await lastEngines(dir.path, KEPT)).toEqual(ENGINES);
  expect(await lastEngines(dir.path, { ...KEPT, bootId: "another" })).toBeUndefined();
  expect(await lastEngines(dir.path, { ...KEPT, version: "1.0.1" })).toBeUndefined();
  await forgetEngines(dir.path);
  await forgetEngines(dir.path);
  expect(await lastEngines(dir.path, KEPT)).toBeUndefined();
});

test.each([
  "",
  "{",
  "null",
  "[]",
  JSON.stringify(KEPT),
  JSON.stringify({ ...KEPT, report: { ...ENGINES, schemaVersion: 2 } }),
  JSON.stringify({ ...KEPT, report: { ...ENGINES, engines: [] } }),
  " ".repeat(300 * 1024),
])("a file that is not what it should be says nothing: %.40s", async (text) => {
  using dir = new ScratchDir();
  writeFileSync(dir.file("ambient-cni-engines.json"), text);
  expect(await lastEngines(dir.path, KEPT)).toBeUndefined();
});
