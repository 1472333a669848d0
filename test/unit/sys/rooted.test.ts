// SPDX-License-Identifier: Apache-2.0
import { mkdirSync, symlinkSync } from "node:fs";
import { afterEach, beforeEach, expect, test } from "vitest";
import { rootedPath } from "../../../src/sys/rooted.ts";
import { ScratchDir } from "../../support/scratch-dir.ts";

let scratch: ScratchDir;
let root: string;

beforeEach(() => {
  scratch = new ScratchDir();
  root = scratch.file("host");
  mkdirSync(`${root}/run/istio-cni`, { recursive: true });
  mkdirSync(`${root}/var/lib`, { recursive: true });
  mkdirSync(`${root}/etc/cni`, { recursive: true });
});
afterEach(() => scratch[Symbol.dispose]());

test("absolute links lead to where they lead on the node", () => {
  symlinkSync("/run", `${root}/var/run`);
  expect(rootedPath(root, "/var/run/istio-cni/x.sock")).toBe(`${root}/run/istio-cni/x.sock`);
  expect(rootedPath(`${root}/`, "/var/run")).toBe(`${root}/run`);
});

test("relative links, links to links, and .. that would leave the root", () => {
  symlinkSync("../run", `${root}/var/run`);
  symlinkSync("../../../../../var/run", `${root}/etc/cni/net.d`);
  expect(rootedPath(root, "/etc/cni/net.d/istio-cni")).toBe(`${root}/run/istio-cni`);
  expect(rootedPath(root, "/../../var/./lib/../run")).toBe(`${root}/run`);
});

test("what is not there stays as it is written; the root itself is resolved by the kernel", () => {
  expect(rootedPath(root, "/opt/cni/bin")).toBe(`${root}/opt/cni/bin`);
  expect(rootedPath("/", "/var/run/x")).toBe("/var/run/x");
});

test("a loop ends", () => {
  symlinkSync("b", `${root}/a`);
  symlinkSync("a", `${root}/b`);
  expect(() => rootedPath(root, "/a/x")).toThrow(expect.objectContaining({ code: "LINK_LOOP" }));
});
