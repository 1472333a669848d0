// SPDX-License-Identifier: Apache-2.0
import { expect, test } from "vitest";
import { processEnv } from "../../../src/cli/env.ts";
import { openKernelSource } from "../../../src/cli/source/kernel/kernel-source.ts";

test("the process as a command sees it can be looked at any number of times: nothing stays behind", () => {
  const before = [process.stdout, process.stderr].map((stream) => stream.listenerCount("error"));
  for (let turn = 0; turn < 20; turn++) processEnv();
  expect([process.stdout, process.stderr].map((stream) => stream.listenerCount("error"))).toEqual(before);
});

test("without an agent, a setting that nobody gave is a default, whatever it was found to be here", async () => {
  const origins = async (environment: Readonly<Record<string, string>>) => {
    const { settings } = await openKernelSource({ ...processEnv(), environment }, "no agent").read("config");
    return settings.filter(({ origin }) => origin !== "default").map(({ setting, origin }) => `${setting}: ${origin}`);
  };
  expect(await origins({})).toEqual([]);
  expect(await origins({ AMBIENT_CNI_HOST_ROOT: "/", NODE_NAME: "worker-3" })).toEqual([
    "NODE_NAME: env NODE_NAME",
    "AMBIENT_CNI_HOST_ROOT: env AMBIENT_CNI_HOST_ROOT",
  ]);
});
