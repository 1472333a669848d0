// SPDX-License-Identifier: Apache-2.0
import { renameSync, unlinkSync } from "node:fs";
import { link, unlink } from "node:fs/promises";
import { dirname } from "node:path";
import { setTimeout } from "node:timers/promises";
import { AgentError, codeOf } from "../src/core/errors.ts";
import { atomicWrite, holdsBytes, overwriteShorter, syncDirectory, type WriteOptions } from "../src/sys/files.ts";
import { nodeFault } from "./node-fault.ts";

/** What must be there for a step to be taken; undefined: nothing. */
type Was = Buffer | undefined | "anything";

/** One change of the node, atomic by itself. If `was` no longer holds, the step fails and does nothing. */
export type Step =
  | {
      readonly do: "write";
      readonly path: string;
      readonly was: Was;
      readonly bytes: Buffer;
      readonly mode: number;
      readonly owner?: WriteOptions["owner"];
      /** Shorter than what was: with a full disk, written in its place. */
      readonly shortens?: true;
    }
  | { readonly do: "rename"; readonly path: string; readonly was: Buffer; readonly to: string; readonly later?: true }
  | { readonly do: "remove"; readonly path: string; readonly was: Was; readonly later?: true };

/**
 * Before a step that is for `later` (ms): a runtime that listed the directory before the last step, and so
 * knows only the file that goes now, must have read it. CRI-O would take the next network instead.
 */
const LATER_MS = 50;

/** @throws AgentError FILE_CHANGED, or the file system's error with a remedy */
export async function take(step: Step): Promise<void> {
  try {
    if (step.do === "write") return await write(step);
    if (step.later === true) await setTimeout(LATER_MS);
    if (step.do === "rename") await move(step);
    else remove(step);
    await syncDirectory(dirname(step.path));
  } catch (error) {
    throw nodeFault(error, step.path);
  }
}

function remove(step: Step & { do: "remove" }): void {
  mustHold(step.path, step.was);
  unlinkSync(step.path);
}

async function write(step: Step & { do: "write" }): Promise<void> {
  const { path, was, bytes, owner } = step;
  const check = () => mustHold(path, was);
  try {
    await atomicWrite(path, bytes, step.mode, { ...(owner === undefined ? {} : { owner }), check });
  } catch (error) {
    const full = codeOf(error) === "ENOSPC" || codeOf(error) === "EDQUOT";
    if (!full || step.shortens !== true || !Buffer.isBuffer(was)) throw error;
    check();
    await overwriteShorter(path, bytes, was.length);
  }
}

async function move(step: Step & { do: "rename" }): Promise<void> {
  mustHold(step.path, step.was);
  renameSync(step.path, step.to);
  if (holds(step.to, step.was)) return;
  // Somebody replaced the file in the moment before: theirs goes back, unless they wrote once more.
  await link(step.to, step.path).catch((error: unknown) => {
    if (codeOf(error) !== "EEXIST") throw error;
  });
  await unlink(step.to);
  throw changed(step.path);
}

function mustHold(path: string, was: Was): void {
  if (!holds(path, was)) throw changed(path);
}

/**
 * What is no regular file counts as nothing: a rename replaces it, or says why it can't. Synchronous, as what comes
 * after it is: a CNI that writes its file in between would lose what it wrote.
 */
function holds(path: string, was: Was): boolean {
  if (was === "anything") return true;
  try {
    const same = holdsBytes(path, was ?? Buffer.alloc(0));
    return was !== undefined && same;
  } catch (error) {
    if (["ENOENT", "ELOOP", "NOT_A_FILE"].includes(codeOf(error))) return was === undefined;
    throw error;
  }
}

function changed(path: string): AgentError {
  return new AgentError("FILE_CHANGED", `${path} was changed by another program meanwhile`, "none: it is tried again");
}
