// SPDX-License-Identifier: Apache-2.0
// Renames that lose nothing. `false`: the file system can't (NFS, some of FUSE), and nothing has happened.
import { codeOf } from "../core/errors.ts";
import { native } from "../native/load.ts";

const UNABLE = new Set(["EINVAL", "ENOSYS", "EOPNOTSUPP"]);

/** Two files take each other's places, with no moment between. @throws errors of the file system */
export function exchangeFiles(one: string, other: string): boolean {
  return able(() => native().fileExchange(one, other));
}

/** Throws EEXIST instead of replacing what is at `to`. @throws errors of the file system */
export function moveFile(from: string, to: string): boolean {
  return able(() => native().fileMove(from, to));
}

function able(rename: () => void): boolean {
  try {
    rename();
    return true;
  } catch (error) {
    if (!UNABLE.has(codeOf(error))) throw error;
    return false;
  }
}
