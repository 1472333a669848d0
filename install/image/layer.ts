// SPDX-License-Identifier: Apache-2.0
import { createHash } from "node:crypto";
import { closeSync, mkdirSync, openSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { readNote, writeNote } from "./note.ts";
import { runProgram } from "./process.ts";
import { writeTar } from "./tar.ts";
import type { Tree } from "./tree.ts";

/** A layer as an image refers to it. */
export interface Layer {
  /** Says in the image's history what it is. */
  readonly title: string;
  /** SHA-256 of the tar and of the compressed tar, in hex. */
  readonly diffId: string;
  readonly digest: string;
  readonly size: number;
  /** The compressed tar. */
  readonly file: string;
}

/**
 * Packs a tree. Compressed by gzip, not by Node: zlib's output differs between versions of Node, gzip's
 * has not changed in decades. What is in `folder` from an earlier run is used where the tree is the same.
 */
export async function packLayer(folder: string, title: string, tree: Tree): Promise<Layer> {
  mkdirSync(folder, { recursive: true });
  const tar = join(folder, `${title}.tar`);
  const file = `${tar}.gz`;
  const note = join(folder, `${title}.json`);
  const { sha256: diffId } = writeTar(tar, tree.entries());
  try {
    const known = readNote<Packed>(note, diffId);
    if (known !== undefined) return { ...known, diffId, title, file };
    rmSync(note, { force: true });
    await gzip(tar, file);
  } finally {
    rmSync(tar, { force: true });
  }
  const bytes = readFileSync(file);
  const packed: Packed = { digest: createHash("sha256").update(bytes).digest("hex"), size: bytes.length };
  writeNote(note, diffId, packed);
  return { ...packed, diffId, title, file };
}

type Packed = Pick<Layer, "digest" | "size">;

async function gzip(from: string, to: string): Promise<void> {
  const stdin = openSync(from, "r");
  const stdout = openSync(`${to}.tmp`, "w", 0o644);
  try {
    await runProgram(["gzip", "-n", "-6"], { stdin, stdout });
  } finally {
    closeSync(stdin);
    closeSync(stdout);
  }
  renameSync(`${to}.tmp`, to);
}
