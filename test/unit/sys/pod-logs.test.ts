// SPDX-License-Identifier: Apache-2.0
import { mkdirSync } from "node:fs";
import { expect, test } from "vitest";
import { podNames } from "../../../src/sys/pod-logs.ts";
import { ScratchDir } from "../../support/scratch-dir.ts";

test("pods are named by kubelet's log directories, and by nothing else that lies there", () => {
  using scratch = new ScratchDir();
  expect(podNames(scratch.path)).toEqual(new Map());
  for (const name of [
    "shop_web-7f4c_0b8bd02c-6c17-4d56-bb0a-5d2ba6b14b8a",
    "kube-system_etcd.node-1_0123456789abcdef0123456789abcdef",
    "shop_no-uid",
    "Shop_web_0b8bd02c-6c17-4d56-bb0a-5d2ba6b14b8b",
    "a_b_c_0b8bd02c-6c17-4d56-bb0a-5d2ba6b14b8c",
    "..",
  ]) {
    mkdirSync(scratch.file(`1/root/var/log/pods/${name}`), { recursive: true });
  }
  expect(podNames(scratch.path)).toEqual(
    new Map([
      ["0b8bd02c-6c17-4d56-bb0a-5d2ba6b14b8a", { namespace: "shop", name: "web-7f4c" }],
      ["0123456789abcdef0123456789abcdef", { namespace: "kube-system", name: "etcd.node-1" }],
    ]),
  );
});
