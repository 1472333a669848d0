// SPDX-License-Identifier: Apache-2.0
// Files that others read while we write them, and files that others wrote.
import { randomBytes } from "node:crypto";
import { lstatSync } from "node:fs";
import { type FileHandle, open, readdir, rename, unlink } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { AgentError, codeOf } from "../core/errors.ts";

/** Temporary files of writes under way in this process: not leftovers. */
const underWay = new Set<string>();

/**
 * Replaces a file so that readers and a power cut see the old bytes or the new ones, nothing else:
 * temporary file beside it, fsync, rename, fsync of the directory. `mode` is exact (no umask).
 * Leftovers `<name>.tmp.*` of crashed runs are removed.
 * @throws errors of the file system, with path and errno
 */
export async function atomicWrite(path: string, data: string | Uint8Array, mode: number): Promise<void> {
  await removeLeftovers(path);
  try {
    await writeAndRename(path, data, mode);
  } catch (error) {
    // Another process that writes the same file took our temporary file for a leftover.
    if (codeOf(error) !== "ENOENT") throw error;
    await writeAndRename(path, data, mode);
  }
}

async function writeAndRename(path: string, data: string | Uint8Array, mode: number): Promise<void> {
  const temporary = `${path}.tmp.${randomBytes(6).toString("hex")}`;
  underWay.add(temporary);
  try {
    const file = await open(temporary, "wx", mode);
    try {
      await file.writeFile(data);
      await file.chmod(mode);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
    await syncDirectory(dirname(path));
  } catch (error) {
    await unlink(temporary).catch(() => undefined);
    throw error;
  } finally {
    underWay.delete(temporary);
  }
}

async function removeLeftovers(path: string): Promise<void> {
  const directory = dirname(path);
  const prefix = `${basename(path)}.tmp.`;
  for (const name of await readdir(directory)) {
    const leftover = join(directory, name);
    if (name.startsWith(prefix) && !underWay.has(leftover)) await unlink(leftover).catch(() => undefined);
  }
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, "r");
  try {
    await directory.sync();
  } catch (error) {
    // Some file systems (FUSE) refuse fsync of a directory; the rename stands all the same.
    if (codeOf(error) !== "EINVAL" && codeOf(error) !== "ENOTSUP") throw error;
  } finally {
    await directory.close();
  }
}

/**
 * Reads a whole file of at most `maxBytes`. Works for /proc, whose files have no size.
 * @throws AgentError FILE_TOO_LARGE naming the file; errors of the file system
 */
export async function readBounded(path: string, maxBytes: number): Promise<Buffer> {
  const file = await open(path, "r");
  try {
    return await readAll(file, path, maxBytes);
  } finally {
    await file.close();
  }
}

async function readAll(file: FileHandle, path: string, maxBytes: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let total = 0;
  for (;;) {
    // One byte more than allowed tells "too large" from "exactly full".
    const chunk = Buffer.allocUnsafe(Math.min(65_536, maxBytes + 1 - total));
    const { bytesRead } = await file.read(chunk, 0, chunk.length, null);
    if (bytesRead === 0) return Buffer.concat(chunks);
    chunks.push(chunk.subarray(0, bytesRead));
    total += bytesRead;
    if (total > maxBytes) throw new AgentError("FILE_TOO_LARGE", `${path} is larger than ${maxBytes} bytes`);
  }
}

/**
 * A socket that a former run left may be replaced by a new one; nothing else may. No file is fine.
 * @throws AgentError NOT_A_SOCKET when something else is there: it is not ours to remove
 */
export function requireSocketPath(path: string): void {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat === undefined || stat.isSocket()) return;
  const what = stat.isDirectory() ? "a directory" : stat.isSymbolicLink() ? "a symbolic link" : "a file";
  throw new AgentError("NOT_A_SOCKET", `${path} is ${what}, not a socket`, "remove it, or configure another path");
}
