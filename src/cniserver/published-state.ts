// SPDX-License-Identifier: Apache-2.0
// What the plugin may rely on while the agent is away; cni/README.md describes the format.
import { mkdirSync } from "node:fs";
import { rm, stat } from "node:fs/promises";
import { join } from "node:path";
import * as v from "valibot";
import { RUN_FILE } from "../core/constants.ts";
import { atomicWrite, readBounded } from "../sys/files.ts";

/** The plugin reads no more than this. */
export const STATE_MAX_BYTES = 4 << 20;

const STATE = v.object({ schema: v.literal(1), bootId: v.string(), clear: v.array(v.string()) });

/**
 * Text of the state file: the namespaces whose pods need no mesh, sorted. What would make it larger
 * than the plugin reads is left out, since a namespace that is not listed is only held back.
 */
export function stateText(bootId: string, clear: readonly string[]): string {
  const names: string[] = [];
  let size = JSON.stringify({ schema: 1, bootId, clear: [] }).length + 1;
  for (const name of [...new Set(clear)].sort()) {
    size += JSON.stringify(name).length + 1;
    if (size > STATE_MAX_BYTES) break;
    names.push(name);
  }
  return `${JSON.stringify({ schema: 1, bootId, clear: names })}\n`;
}

/**
 * Replaces the state file; `bootId` ties it to the running kernel. 0644: the plugin refuses a file
 * that others than root can write. If it can't be replaced (a full disk), it goes: what it said may let pods pass of
 * namespaces that have joined the mesh since.
 * @throws errors of the file system
 */
export async function writeState(runDir: string, bootId: string, clear: readonly string[]): Promise<void> {
  const path = join(runDir, RUN_FILE.state);
  const text = stateText(bootId, clear);
  try {
    mkdirSync(runDir, { recursive: true, mode: 0o750 });
    await atomicWrite(path, text, 0o644);
  } catch (error) {
    const there = await readBounded(path, STATE_MAX_BYTES).catch(() => undefined);
    if (there?.toString("utf8") !== text) await removeState(runDir);
    throw error;
  }
}

/** For an agent that none of ours follows: nobody is to rely on it any more. Idempotent. */
export async function removeState(runDir: string): Promise<void> {
  await rm(join(runDir, RUN_FILE.state), { force: true });
}

/**
 * When an agent last wrote the state since this boot (wall clock, ms). `undefined`: never, or what is there says
 * nothing we understand. Never throws: no agent stays away because of it.
 */
export async function stateWrittenAt(runDir: string, bootId: string): Promise<number | undefined> {
  const path = join(runDir, RUN_FILE.state);
  try {
    const [text, { mtimeMs }] = await Promise.all([readBounded(path, STATE_MAX_BYTES), stat(path)]);
    const parsed = v.safeParse(STATE, JSON.parse(text.toString("utf8")));
    return parsed.success && parsed.output.bootId === bootId ? mtimeMs : undefined;
  } catch {
    return undefined;
  }
}
