// SPDX-License-Identifier: Apache-2.0
import { dirname } from "node:path";
import { setTimeout } from "node:timers/promises";
import { codeOf } from "../src/core/errors.ts";
import { atomicWrite, overwriteShorter, syncDirectory, type WriteOptions } from "../src/sys/files.ts";
import { moveAway, mustHold, removeFile, replaceFile, type Was } from "./exchange.ts";
import { nodeFault } from "./node-fault.ts";

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
  | {
      readonly do: "rename";
      readonly path: string;
      readonly was: Buffer;
      readonly to: string;
      /** What is at `to` is of no more use. */
      readonly replaces?: true;
      readonly later?: true;
    }
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
    if (step.do === "rename") moveAway(step.path, step.to, step.was, step.replaces === true);
    else removeFile(step.path, step.was);
    await syncDirectory(dirname(step.path));
  } catch (error) {
    throw nodeFault(error, step.path);
  }
}

async function write(step: Step & { do: "write" }): Promise<void> {
  const { path, was, bytes, owner } = step;
  const place = (temporary: string) => replaceFile(temporary, path, was);
  try {
    await atomicWrite(path, bytes, step.mode, { ...(owner === undefined ? {} : { owner }), place });
  } catch (error) {
    const full = codeOf(error) === "ENOSPC" || codeOf(error) === "EDQUOT";
    if (!full || step.shortens !== true || !Buffer.isBuffer(was)) throw error;
    mustHold(path, was);
    await overwriteShorter(path, bytes, was);
  }
}
