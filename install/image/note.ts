// SPDX-License-Identifier: Apache-2.0
// What a build remembers of what it has made, beside it: written last, and whole or not at all.
import { readFileSync, renameSync, writeFileSync } from "node:fs";

/** What was written for exactly this key, else undefined. */
export function readNote<T>(file: string, key: unknown): T | undefined {
  try {
    const note = JSON.parse(readFileSync(file, "utf8"));
    return JSON.stringify(note.key) === JSON.stringify(key) ? note.value : undefined;
  } catch {
    // Not there, or of a build that was of another version: then it is made anew.
    return undefined;
  }
}

/** Remembers `value` for `key`. */
export function writeNote(file: string, key: unknown, value: unknown): void {
  writeFileSync(`${file}.tmp`, JSON.stringify({ key, value }));
  renameSync(`${file}.tmp`, file);
}
