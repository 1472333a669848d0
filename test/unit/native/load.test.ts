// SPDX-License-Identifier: Apache-2.0
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { NativeError } from "../../../src/native/fault.ts";
import { addonPaths, loadFrom, native } from "../../../src/native/load.ts";

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "load-"));
});
afterAll(() => {
  rmSync(dir, { recursive: true });
});

test("an override is the only place looked at; without one the bundle's neighbour comes first", () => {
  expect(addonPaths("/opt/dist", "/elsewhere/x.node")).toEqual(["/elsewhere/x.node"]);
  expect(addonPaths("/opt/dist", "")).toEqual([
    "/opt/dist/agent.node",
    "/opt/build/cmake/Release/ambient.node",
    "/build/cmake/Release/ambient.node",
  ]);
});

test("a failure lists every place tried, each with its reason, and says how to build", () => {
  const text = join(dir, "text.node");
  writeFileSync(text, "no shared object");
  expect(() => loadFrom(["/none/a.node", text])).toThrow(
    new RegExp(
      `linux-.*Tried:\n  /none/a.node: Cannot find module .*\n  ${text}: .*\nBuild it with .cmake-js`.replace(
        ".cmake-js",
        ".npx cmake-js",
      ),
    ),
  );
});

test("an addon of another ABI is refused in words", () => {
  const other = join(dir, "other.cjs");
  writeFileSync(other, "exports.abiVersion = 999;");
  expect(() => loadFrom([other])).toThrow("it speaks ABI 999, this program ABI");
});

test("the addon throws the project's error class", () => {
  let thrown: unknown;
  try {
    native().netnsOpen("/no/such/file");
  } catch (error) {
    thrown = error;
  }
  expect(thrown).toBeInstanceOf(NativeError);
  expect(thrown).toMatchObject({
    code: "ENOENT",
    errno: -2,
    syscall: "open",
    message: "open network namespace /no/such/file: No such file or directory (ENOENT)",
  });
});
