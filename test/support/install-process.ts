// SPDX-License-Identifier: Apache-2.0
// Installs or restores in a process of its own, which is killed when it is about to make its n-th change
// to what readers see; of a write, half is done by then. Bundled by the test, started with one JSON argument.
import syncFs from "node:fs";
import fs from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";
import { Installer, type InstallerConfig } from "../../install/installer.ts";
import { native } from "../../src/native/load.ts";
import { LogRecorder, MetricRecorder } from "./recorder.ts";

export interface InstallOrder {
  readonly config: InstallerConfig;
  readonly entry: Readonly<Record<string, unknown>>;
  readonly action: "install" | "restore";
  /** Counted from 1; 0: not at all. */
  readonly killAt: number;
  /** Again and again, install and restore in turn, until somebody kills it. */
  readonly forever?: boolean;
}

type Call = (this: unknown, ...args: never[]) => Promise<unknown>;

const order = JSON.parse(process.argv[2] ?? "{}") as InstallOrder;
let calls = 0;

async function dieIfDue(half?: () => Promise<unknown>): Promise<void> {
  if (++calls !== order.killAt) return;
  await half?.();
  process.kill(process.pid, "SIGKILL");
}

/** Of those that follow a look without anything in between. */
function beforeAtOnce<T extends object>(owner: T, name: keyof T & string): void {
  const call = owner[name] as (...args: unknown[]) => void;
  const counted = (...args: unknown[]) => {
    if (++calls === order.killAt) process.kill(process.pid, "SIGKILL");
    call(...args);
  };
  owner[name] = counted as T[typeof name];
}

function before<T extends object>(owner: T, name: keyof T & string, isChange: (args: unknown[]) => boolean): void {
  const call = owner[name] as Call;
  const counted: Call = async function (...args) {
    if (isChange(args)) {
      const data: unknown = args[0];
      const half = Buffer.isBuffer(data)
        ? () => call.call(this, ...([data.subarray(0, data.length / 2)] as never[]))
        : undefined;
      await dieIfDue(name === "writeFile" ? half : undefined);
    }
    return call.apply(this, args);
  };
  owner[name] = counted as T[typeof name];
}

if (order.killAt > 0) {
  const handle = await fs.open("/dev/null", "r");
  const FileHandle = Object.getPrototypeOf(handle) as Record<"writeFile", unknown>;
  await handle.close();
  before(FileHandle, "writeFile", () => true);
  before(fs, "open", ([, flags]) => flags === "wx");
  before(fs, "unlink", () => true);
  for (const name of ["renameSync", "unlinkSync"] as const) beforeAtOnce(syncFs, name);
  for (const name of ["fileExchange", "fileMove"] as const) beforeAtOnce(native(), name);
  syncBuiltinESMExports();
}

const installer = new Installer(order.config, order.entry, new LogRecorder(), new MetricRecorder());
do {
  await installer[order.action]();
  if (order.forever === true) await installer.restore();
} while (order.forever === true);
process.stdout.write(String(calls));
