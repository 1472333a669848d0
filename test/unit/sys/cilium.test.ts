// SPDX-License-Identifier: Apache-2.0
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { afterEach, beforeEach, expect, test } from "vitest";
import { ciliumSettings } from "../../../src/sys/cilium.ts";
import { ScratchDir } from "../../support/scratch-dir.ts";

let node: ScratchDir;
beforeEach(() => {
  node = new ScratchDir();
  mkdirSync(node.file("run/cilium/state"), { recursive: true });
  mkdirSync(node.file("var"));
  // As on a node: the link leads to the node's own /run.
  symlinkSync("/run", node.file("var/run"));
});
afterEach(() => node[Symbol.dispose]());
const write = (text: string) => writeFileSync(node.file("run/cilium/state/agent-runtime-config.json"), text);

test("what Cilium's agent has written down is read; what it does not say is not known", async () => {
  write('{"EnableBPFMasquerade":true,"EnableIPv4Masquerade":true,"EnableHostLegacyRouting":false,"Monitor":{}}');
  expect(await ciliumSettings(node.path)).toEqual({
    bpfMasquerade: true,
    masquerade: true,
    legacyRouting: false,
    socketLbHostOnly: undefined,
  });
  write('{"EnableBPFMasquerade":"yes"}');
  expect((await ciliumSettings(node.path))?.bpfMasquerade).toBeUndefined();
  write("[]");
  expect((await ciliumSettings(node.path))?.bpfMasquerade).toBeUndefined();
});

test("no Cilium, and a file that is none", async () => {
  expect(await ciliumSettings(node.path)).toBeUndefined();
  write("{");
  await expect(ciliumSettings(node.path)).rejects.toMatchObject({ code: "CILIUM_CONFIG" });
  write("x".repeat(2 << 20));
  await expect(ciliumSettings(node.path)).rejects.toMatchObject({ code: "FILE_TOO_LARGE" });
});
