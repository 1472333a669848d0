// SPDX-License-Identifier: Apache-2.0
// The scenarios of the repository, by the program that a person runs; and one that must fail.
import { execFile } from "node:child_process";
import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import type { Check } from "../../src/sandbox/checks.ts";
import { leftovers, PROGRAM } from "../support/sandbox.ts";
import { ScratchDir } from "../support/scratch-dir.ts";

const DIRECTORY = fileURLToPath(new URL("../../scenarios/", import.meta.url));
/** docs.test.ts plays the other one. */
const SCENARIOS = readdirSync(DIRECTORY).filter((name) => name !== "playground.yaml");

interface Outcome {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly pid: number;
}

interface RunDocument {
  readonly runs: readonly { readonly checks: readonly Check[]; readonly error?: string }[];
}

function run(...args: readonly string[]): Promise<Outcome> {
  return new Promise((resolve) => {
    const child = execFile(process.execPath, [PROGRAM, "sandbox", "run", ...args], (_error, stdout, stderr) => {
      resolve({ status: child.exitCode, stdout, stderr, pid: child.pid ?? 0 });
    });
  });
}

describe("every scenario passes and leaves nothing", () => {
  test.each(SCENARIOS)("%s", async (name) => {
    const { status, stdout, stderr, pid } = await run("--json", join(DIRECTORY, name));
    expect(stderr).toBe("");
    const [only] = (JSON.parse(stdout) as RunDocument).runs;
    expect(only?.error).toBeUndefined();
    expect(only?.checks.filter(({ passed }) => !passed)).toEqual([]);
    expect(status).toBe(0);
    expect(leftovers(pid)).toEqual([]);
  });
});

/** Each step is expected to find what is not so. */
const WRONG = `
title: everything is otherwise
namespaces: { shop: { istio.io/dataplane-mode: ambient }, legacy: {} }
pods: { shop/web: {}, shop/cart: {}, legacy/batch: {} }
steps:
  - start: [agent, ztunnel, shop/web, shop/cart, legacy/batch]
  - { wait: shop/web, for: failing, within: 500ms }
  - { connect: shop/web, to: shop/cart, expect: { answered: shop/web } }
  - { connect: shop/web, to: shop/cart, expect: { answered: shop/cart, client: legacy/batch } }
  - { connect: shop/web, to: shop/cart, expect: { answered: shop/cart, wire: clear } }
  - { connect: legacy/batch, to: shop/cart, expect: { answered: shop/cart, wire: hbone } }
  - { connect: shop/web, to: shop/cart, expect: { answered: shop/cart, outbound: none } }
  - { connect: legacy/batch, to: shop/cart, expect: { answered: shop/cart, inbound: none } }
  - { connect: shop/web, to: shop/cart, expect: { refused: any } }
  - { connect: shop/web, to: shop/cart, port: 81, expect: { refused: EHOSTUNREACH } }
  - { run: status, expect: { status: 1 } }
  - { run: status, expect: { contains: moon } }
  - { run: status, expect: { lacks: node1 } }
  - { sabotage: legacy/batch, by: delete-nftables-table }
  - { start: shop/web, fails: anything }
  - { connect: shop/web, to: shop/cart, expect: { answered: shop/cart } }
`;

test("what is not so fails, each step by itself, and a step that others stand on ends it", async () => {
  using scratch = new ScratchDir();
  const file = join(scratch.path, "wrong.yaml");
  writeFileSync(file, WRONG);
  const { status, stdout, pid } = await run("--json", file);
  const [only] = (JSON.parse(stdout) as RunDocument).runs;
  expect(only?.checks.map(({ passed }) => passed)).toEqual([true, ...Array.from({ length: 14 }, () => false)]);
  expect(only?.error).toMatch(/^step 15 failed, and the others stand on it: /);
  expect(status).toBe(1);
  expect(leftovers(pid)).toEqual([]);
});

test("a file that is wrong makes no sandbox", async () => {
  using scratch = new ScratchDir();
  const file = join(scratch.path, "none.yaml");
  writeFileSync(file, "title: x\nnodes: many\n");
  const { status, stdout, stderr } = await run(file);
  expect([status, stdout]).toEqual([2, ""]);
  expect(stderr).toMatch(/^ambient-cni: \S+none\.yaml:2: nodes: not 1 or 2: "many"\n/);
});
