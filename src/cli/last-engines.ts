// SPDX-License-Identifier: Apache-2.0
// What an agent's self-tests have shown, kept for those who ask while it is away: to test anew takes most of a second.
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { RUN_FILE } from "../core/constants.ts";
import { parseDocument } from "../core/report/documents.ts";
import type { EnginesReport } from "../core/report/engines.ts";
import { atomicWrite, readBounded } from "../sys/files.ts";

const MAX_BYTES = 256 * 1024;

interface Kept {
  readonly bootId: string;
  readonly version: string;
}

/** @throws errors of the file system */
export async function keepEngines(runDir: string, kept: Kept, report: EnginesReport): Promise<void> {
  await atomicWrite(join(runDir, RUN_FILE.engines), `${JSON.stringify({ ...kept, report })}\n`, 0o644);
}

/** Idempotent. @throws errors of the file system */
export async function forgetEngines(runDir: string): Promise<void> {
  await rm(join(runDir, RUN_FILE.engines), { force: true });
}

/** Of an agent of this version since this boot; undefined: there is none, or nothing that we understand. */
export async function lastEngines(runDir: string, { bootId, version }: Kept): Promise<EnginesReport | undefined> {
  try {
    const value: unknown = JSON.parse((await readBounded(join(runDir, RUN_FILE.engines), MAX_BYTES)).toString("utf8"));
    if (typeof value !== "object" || value === null || !("report" in value)) return undefined;
    const same = "bootId" in value && value.bootId === bootId && "version" in value && value.version === version;
    const report = same ? parseDocument("engines", value.report) : undefined;
    return report?.engines.length === 0 ? undefined : report;
  } catch {
    // Whatever is wrong with it: the engines can be tried instead.
    return undefined;
  }
}
