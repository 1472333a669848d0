// SPDX-License-Identifier: Apache-2.0
// A keeper in a process of its own, for places that a test does not want to be in itself. Bundled by the
// test; prints what it says, a JSON line each, and what its parent asks for, when it asks.
import { createInterface } from "node:readline";
import { Installer, type InstallerConfig } from "../../install/installer.ts";
import { Keeper } from "../../install/keeper.ts";
import { systemClock } from "../../src/core/clock.ts";
import { codeOf } from "../../src/core/errors.ts";
import { DriftLedger } from "../../src/telemetry/drift-ledger.ts";
import { LogRecorder, MetricRecorder } from "./recorder.ts";

export interface KeeperOrder {
  readonly config: InstallerConfig;
  readonly entry: Readonly<Record<string, unknown>>;
}

export interface KeeperState {
  readonly missing: string | null;
  readonly log: LogRecorder["lines"];
  /** Why removing failed, if it was asked for and did. */
  readonly failure: string | null;
}

const { config, entry } = JSON.parse(process.argv[2] ?? "{}") as KeeperOrder;
const logger = new LogRecorder();
const metrics = new MetricRecorder();
const installer = new Installer(config, entry, logger, metrics);
const keeper = new Keeper({ installer, clock: systemClock, logger, metrics, drift: new DriftLedger(metrics) });
keeper.start();
for await (const line of createInterface({ input: process.stdin })) {
  const failed = line === "remove" ? await keeper.remove().then(() => null, codeOf) : null;
  const state: KeeperState = { missing: keeper.missing() ?? null, log: logger.lines, failure: failed };
  process.stdout.write(`${JSON.stringify(state)}\n`);
}
await keeper.stop();
