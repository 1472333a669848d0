// SPDX-License-Identifier: Apache-2.0
// What happens to a node in any order, with faults in between: in the end all agree. AMBIENT_CNI_TROUBLE=FROM-TO runs other seeds.
import { afterAll, afterEach, expect, test, vi } from "vitest";
import { ScratchDir } from "../../../support/scratch-dir.ts";
import { Chance } from "../storm/chance.ts";
import { FaultNode } from "./fault-node.ts";
import { SWEEP_MS } from "./life.ts";
import { Trouble } from "./trouble.ts";

const EVENTS = 30;
const FAILING = 0.01;
const SETTLE_MS = 80_000;
const [FROM = 1, TO = 10] = (process.env.AMBIENT_CNI_TROUBLE ?? "1-10").split("-").map(Number);

const dir = new ScratchDir();
afterAll(() => dir[Symbol.dispose]());
afterEach(() => vi.restoreAllMocks());

async function troubled(seed: number): Promise<{ wrong: string[]; told: string[] }> {
  const chance = new Chance(seed * 7919);
  vi.spyOn(Math, "random").mockImplementation(() => chance.number());
  const told: string[] = [];
  const slow = chance.is(0.5);
  const node = new FaultNode({
    socketDir: dir.path,
    seed,
    told: (what) => told.push(what),
    lag: () => chance.below(chance.is(0.2) ? 400 : 30),
    delay: () => (slow && chance.is(0.5) ? chance.below(chance.is(0.1) ? 500 : 20) : 0),
  });
  node.run("calm", { namespace: "calm" });
  await node.boot();
  const trouble = new Trouble(node, chance);
  let over = false;
  void trouble.make(EVENTS, FAILING).then(() => {
    over = true;
    node.point.disarm();
  });
  await node.clock.pass(1e9, () => over);
  await node.clock.pass(SETTLE_MS);
  const wrong = new Set(node.disagreements(false));
  await node.clock.pass(SWEEP_MS + 20_000);
  for (const one of node.disagreements(true)) wrong.add(one);
  node.life.end();
  return { wrong: [...wrong], told };
}

test("in any order", async () => {
  const bad: string[] = [];
  for (let seed = FROM; seed <= TO; seed++) {
    const { wrong, told } = await troubled(seed);
    if (wrong.length > 0) bad.push(`seed ${seed}: ${wrong.join("; ")}${FROM === TO ? `\n${told.join("\n")}` : ""}`);
  }
  expect(bad.join("\n")).toBe("");
}, 600_000);
