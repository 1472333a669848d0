// SPDX-License-Identifier: Apache-2.0
// Files change hands only as they were looked at. A CNI may write its own at any moment, also between our last look
// and our rename: so what was replaced, moved or removed is looked at once more where nobody else finds it, and goes
// back if it is something else. Only where the file system can't exchange files is there a gap left. Synchronous:
// nothing of ours comes in between.
import { lstatSync, renameSync, unlinkSync } from "node:fs";
import { AgentError, codeOf } from "../src/core/errors.ts";
import { holdsBytes, temporaryName } from "../src/sys/files.ts";
import { exchangeFiles, moveFile } from "../src/sys/renames.ts";

/** What must be there for a change to be made; undefined: nothing. */
export type Was = Buffer | undefined | "anything";

/** Another program that writes this often in a row is not waited for. */
const TRIES = 10;

/** `temporary` takes the place of what was at `path`. @throws AgentError FILE_CHANGED; errors of the file system */
export function replaceFile(temporary: string, path: string, was: Was): void {
  mustHold(path, was);
  if (was === "anything") renameSync(temporary, path);
  else if (was === undefined) moveWhere(temporary, path);
  else {
    const ours = markOf(temporary);
    if (exchangeFiles(temporary, path)) {
      mustBe(temporary, path, was, () => putBack(temporary, path, ours));
      unlinkSync(temporary);
    } else renameSync(temporary, path);
  }
}

/** `replaces`: what is at `to` may be lost. @throws as replaceFile */
export function moveAway(path: string, to: string, was: Buffer, replaces: boolean): void {
  mustHold(path, was);
  if (replaces) renameSync(path, to);
  else moveWhere(path, to);
  mustBe(to, path, was, () => giveBack(to, path));
}

/** @throws as replaceFile */
export function removeFile(path: string, was: Was): void {
  mustHold(path, was);
  if (Buffer.isBuffer(was)) {
    const aside = temporaryName(path);
    renameSync(path, aside);
    mustBe(aside, path, was, () => giveBack(aside, path));
    unlinkSync(aside);
  } else unlinkSync(path);
}

/** @throws AgentError FILE_CHANGED; errors of the file system */
export function mustHold(path: string, was: Was): void {
  if (!holds(path, was)) throw changed(path);
}

function mustBe(at: string, path: string, was: Buffer, undo: () => void): void {
  let failure: unknown = changed(path);
  try {
    if (holds(at, was)) return;
  } catch (error) {
    failure = error;
  }
  undo();
  throw failure;
}

/** What is no regular file counts as nothing: a rename replaces it, or says why it can't. */
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

/** Ours comes back out; if it is something newer of theirs, written since, that goes back again. */
function putBack(temporary: string, path: string, ours: string): void {
  for (let [put, tries] = [ours, 0]; tries < TRIES; tries++) {
    const theirs = markOf(temporary);
    try {
      exchangeFiles(temporary, path);
    } catch (error) {
      // Removed by them since.
      if (codeOf(error) === "ENOENT") return;
      throw error;
    }
    if (markOf(temporary) === put) return;
    put = theirs;
  }
}

/** To where it was, unless something newer is there. */
function giveBack(from: string, path: string): void {
  try {
    moveWhere(from, path);
  } catch (error) {
    if (codeOf(error) !== "FILE_CHANGED") throw error;
    unlinkSync(from);
  }
}

/** Where nothing may be. */
function moveWhere(from: string, to: string): void {
  try {
    if (moveFile(from, to)) return;
  } catch (error) {
    throw codeOf(error) === "EEXIST" ? changed(to) : error;
  }
  mustHold(to, undefined);
  renameSync(from, to);
}

/** Of these bytes in this file, as a rename leaves it. */
function markOf(path: string): string {
  const { ino, size, mtimeNs } = lstatSync(path, { bigint: true });
  return `${ino} ${size} ${mtimeNs}`;
}

function changed(path: string): AgentError {
  return new AgentError("FILE_CHANGED", `${path} was changed by another program meanwhile`, "none: it is tried again");
}
