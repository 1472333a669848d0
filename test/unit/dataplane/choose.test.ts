// SPDX-License-Identifier: Apache-2.0
import { expect, test } from "vitest";
import type { EngineName, EngineTest } from "../../../src/core/ports/dataplane.ts";
import { chooseEngines, testEngines } from "../../../src/dataplane/choose.ts";
import type { Engine } from "../../../src/dataplane/engine.ts";

function engine(name: EngineName, works: boolean): Engine {
  const result: EngineTest = {
    engine: name,
    works,
    reason: works ? undefined : `${name} is broken`,
    losses: [],
    milliseconds: 1,
  };
  const never = () => {
    throw new Error("not asked for");
  };
  return {
    name,
    translates: true,
    needsSysctls: true,
    selfTest: async () => result,
    plan: never,
    planned: never,
    ineligible: never,
    observe: never,
    present: never,
    mode: never,
    apply: never,
    verify: never,
    drain: never,
    retire: never,
    keepsAlive: never,
    remove: never,
    state: never,
    verdicts: never,
    close: never,
  };
}

async function choose(wanted: "auto" | EngineName, ...engines: Engine[]): Promise<EngineName> {
  return chooseEngines(engines, await testEngines(engines), wanted)[0].name;
}

test("the best that works", async () => {
  expect(await choose("auto", engine("iptables", true), engine("nftables", true), engine("ebpf", true))).toBe("ebpf");
  expect(await choose("auto", engine("iptables", true), engine("nftables", true), engine("ebpf", false))).toBe(
    "nftables",
  );
  expect(await choose("auto", engine("nftables", false), engine("iptables", true))).toBe("iptables");
});

test("the one that was asked for, or none", async () => {
  expect(await choose("nftables", engine("ebpf", true), engine("nftables", true))).toBe("nftables");
  await expect(choose("ebpf", engine("ebpf", false), engine("nftables", true))).rejects.toMatchObject({
    code: "NO_ENGINE",
    message: "engine ebpf is not available on this node (ebpf: ebpf is broken; nftables: works)",
  });
});

test("none works: every reason is said", async () => {
  await expect(choose("auto", engine("nftables", false), engine("iptables", false))).rejects.toMatchObject({
    code: "NO_ENGINE",
    message: "no engine works on this node (nftables: nftables is broken; iptables: iptables is broken)",
  });
});
