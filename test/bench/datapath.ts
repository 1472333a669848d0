// SPDX-License-Identifier: Apache-2.0
// `npm run bench -- datapath`: what redirection costs, on this machine, in one run.
import { readFileSync, writeFileSync } from "node:fs";
import { cpus, release } from "node:os";
import { dirname, relative } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { messageOf } from "../../src/core/errors.ts";
import { DIRECTIONS, type Direction } from "./datapath/ground.ts";
import { MODES, type Mode, Trial } from "./datapath/measure.ts";
import { plot } from "./datapath/plot.ts";
import { busySecondsOf, Programs } from "./datapath/programs.ts";
import { asMarkdown, asText, type Result, replaceSection } from "./datapath/report.ts";
import { goals, type Round, summarize } from "./datapath/summary.ts";
import { makeVariants, USUAL_NAMES, VARIANT_NAMES, type VariantName } from "./datapath/variants.ts";
import { costOf, totalOf } from "./process-cost.ts";

const SECONDS = "1.6";
const WARM_UP_SECONDS = 0.2;
/** Turns of each variant in one round. */
const TURNS = 8;
/** The kernel takes a closed pod apart in the background: not during the next measurement. */
const SETTLE_MS = 250;
const EVERY_CPU = new Set(["cpu"]);
const USAGE = `usage: npm run bench -- datapath [--engines ${VARIANT_NAMES.join(",")}] [--rounds N] [--ipv6]
  [--seconds PER_MEASUREMENT] [--cpus one|split] [--iptables nft|legacy] [--json] [--plot FILE.svg] [--markdown FILE.md]`;

const { values: options } = parseArgs({
  options: {
    engines: { type: "string", default: USUAL_NAMES.join(",") },
    rounds: { type: "string", default: "5" },
    seconds: { type: "string", default: SECONDS },
    ipv6: { type: "boolean", default: false },
    iptables: { type: "string", default: "nft" },
    cpus: { type: "string", default: "one" },
    json: { type: "boolean", default: false },
    plot: { type: "string" },
    markdown: { type: "string" },
  },
});

function refuse(what: string): never {
  console.error(`bench: ${what}\n${USAGE}`);
  process.exit(2);
}

const isVariantName = (name: string): name is VariantName => VARIANT_NAMES.some((known) => known === name);
const wanted = options.engines.split(",").map((name) => (isVariantName(name) ? name : refuse(`no engine ${name}`)));
const rounds = Number(options.rounds);
if (!Number.isInteger(rounds) || rounds < 1) refuse("--rounds is a number of at least 1");
const seconds = Number(options.seconds);
if (!(seconds > 0)) refuse("--seconds is a positive number");
if (options.iptables !== "nft" && options.iptables !== "legacy") refuse("--iptables is nft or legacy");
if (options.cpus !== "one" && options.cpus !== "split") refuse("--cpus is one or split");
const family = options.ipv6 ? 6 : 4;

using programs = await Programs.compile(options.cpus);
const { variants, absent } = await makeVariants(wanted, options.iptables);
const repeated: string[] = [];
const tell = (line: string) => console.error(line);

/** CPU time of this process and of every program that it has started and that has ended. */
function childSeconds(): number {
  return totalOf(costOf(process.pid));
}

/** Another order each time, so that nobody always follows the same neighbour. */
function inOrder<T>(items: readonly T[], turn: number): T[] {
  const first = turn % Math.max(1, items.length);
  const turned = [...items.slice(first), ...items.slice(0, first)];
  return turn % 2 === 0 ? turned : turned.reverse();
}

/** A turn that one lost connection spoils is measured once more, and told. */
async function runTwice(trial: Trial, direction: Direction, mode: Mode, length: number): Promise<void> {
  try {
    await trial.run(mode, length);
  } catch (error) {
    repeated.push(`${direction} ${mode} ${trial.variant.name}: ${messageOf(error)}`);
    tell(`measured again: ${repeated.at(-1)}`);
    await trial.run(mode, length);
  }
}

/**
 * All variants side by side, in turns of a fraction of a second: whatever else the machine does
 * meanwhile happens to all of them.
 */
async function measureRound(round: number, direction: Direction, length: number): Promise<Round> {
  const open: Trial[] = [];
  try {
    for (const variant of variants) open.push(await Trial.open(programs, variant, direction, family));
    for (const mode of MODES) {
      const turnLength = (mode === "latency" ? length / 2 : length) / TURNS;
      for (let turn = 0; turn < TURNS; turn++) {
        for (const trial of inOrder(open, round + turn)) await runTwice(trial, direction, mode, turnLength);
      }
    }
    return { direction, samples: new Map(open.map((trial) => [trial.variant.name, trial.samples()])) };
  } finally {
    for (const trial of open) await trial[Symbol.asyncDispose]();
  }
}

async function measureBoth(round: number, length: number): Promise<Round[]> {
  const measured: Round[] = [];
  for (const direction of DIRECTIONS) {
    measured.push(await measureRound(round, direction, length));
    await sleep(SETTLE_MS);
  }
  return measured;
}

const all: Round[] = [];
const began = performance.now();
const busyBefore = busySecondsOf(EVERY_CPU);
const ownBefore = childSeconds();
let otherWork = 0;
try {
  tell(`engines: ${variants.map(({ name }) => name).join(", ")}; warming up`);
  await measureBoth(0, WARM_UP_SECONDS);
  for (let round = 0; round < rounds; round++) {
    tell(`round ${round + 1} of ${rounds}`);
    all.push(...(await measureBoth(round, seconds)));
  }
  const wall = ((performance.now() - began) / 1000) * cpus().length;
  otherWork = Math.max(0, busySecondsOf(EVERY_CPU) - busyBefore - (childSeconds() - ownBefore)) / wall;
} finally {
  for (const variant of variants) variant.close();
}

const summaries = summarize(
  all,
  variants.map(({ name }) => name),
);
const machine = `Linux ${release()}, ${cpus().length} CPUs (${cpus()[0]?.model.trim() ?? "unknown"})`;
const result: Result = {
  ...{ family, rounds, machine, iptables: options.iptables, cpus: options.cpus, otherWork, absent, repeated },
  ...{ summaries, goals: goals(summaries) },
};

const samples = all.map((round) => ({ direction: round.direction, ...Object.fromEntries(round.samples) }));
console.log(options.json ? JSON.stringify({ ...result, samples }, null, 2) : asText(result));
if (options.plot !== undefined) writeFileSync(options.plot, plot(result));
if (options.markdown !== undefined) {
  const image = options.plot === undefined ? undefined : relative(dirname(options.markdown), options.plot);
  const picture = image === undefined ? "" : `![The same as bars with whiskers](${image})\n\n`;
  const document = readFileSync(options.markdown, "utf8");
  writeFileSync(options.markdown, replaceSection(document, "datapath", `${picture}${asMarkdown(result)}`));
}
