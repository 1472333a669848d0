// SPDX-License-Identifier: Apache-2.0
// Files that others read while we write them, and files that others wrote.
import { randomBytes } from "node:crypto";
import { closeSync, constants, fstatSync, lstatSync, openSync, readSync, renameSync } from "node:fs";
import { type FileHandle, open, readdir, unlink } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { AgentError, codeOf } from "../core/errors.ts";

/** Temporary files of writes under way in this process: not leftovers. */
const underWay = new Set<string>();

export interface WriteOptions {
  /** Who owns the file; left to the process where it may not give files away. */
  readonly owner?: { readonly uid: number; readonly gid: number };
  /** Puts the temporary file in its place, or throws; default: a rename over whatever is there. */
  readonly place?: (temporary: string) => void;
}

/**
 * Replaces a file so that readers and a power cut see the old bytes or the new ones, nothing else:
 * temporary file beside it, fsync, rename, fsync of the directory. `mode` is exact (no umask).
 * Leftovers of crashed runs are removed.
 * @throws errors of the file system, with path and errno; what `place` throws
 */
export async function atomicWrite(
  path: string,
  data: string | Uint8Array,
  mode: number,
  options: WriteOptions = {},
): Promise<void> {
  await removeLeftovers(dirname(path), (name) => name === basename(path));
  try {
    await writeAndRename(path, data, mode, options);
  } catch (error) {
    // Another process that writes the same file took our temporary file for a leftover.
    if (codeOf(error) !== "ENOENT") throw error;
    await writeAndRename(path, data, mode, options);
  }
}

/** Of a file beside `path` that runtimes do not read, and that is removed as a leftover should it stay. */
export const temporaryName = (path: string): string => `${path}.tmp.${randomBytes(6).toString("hex")}`;

async function writeAndRename(
  path: string,
  data: string | Uint8Array,
  mode: number,
  options: WriteOptions,
): Promise<void> {
  const temporary = temporaryName(path);
  underWay.add(temporary);
  try {
    const file = await open(temporary, "wx", mode);
    try {
      await file.writeFile(data);
      await file.chmod(mode);
      await giveTo(file, options.owner);
      await file.sync();
    } finally {
      await file.close();
    }
    if (options.place === undefined) renameSync(temporary, path);
    else options.place(temporary);
    await syncDirectory(dirname(path));
  } catch (error) {
    await unlink(temporary).catch(() => undefined);
    throw error;
  } finally {
    underWay.delete(temporary);
  }
}

/**
 * Replaces a text by a shorter one in its place, for a disk without room for another file. First with
 * white space up to the old length, in one write, then that is cut off: between the two a JSON text is one.
 * Who reads during the write may see parts of both (ext4 locks writers, not readers) and has to read again,
 * as who watches the file does. Only a file system that writes over its blocks can do it, and a power cut may tear it.
 * If it fails, `old` is written back.
 * @throws errors of the file system
 */
export async function overwriteShorter(path: string, data: Uint8Array, old: Uint8Array): Promise<void> {
  const file = await open(path, constants.O_WRONLY | constants.O_NONBLOCK);
  try {
    try {
      await writeAll(file, Buffer.concat([data, Buffer.alloc(old.length - data.length, " ")]));
      await file.sync();
      await file.truncate(data.length);
    } catch (error) {
      await writeAll(file, old);
      throw error;
    }
    await file.sync();
  } finally {
    await file.close();
  }
}

/** From the file's beginning, also when the kernel takes less at a time. */
async function writeAll(file: FileHandle, data: Uint8Array): Promise<void> {
  for (let written = 0; written < data.length; ) {
    written += (await file.write(data, written, data.length - written, written)).bytesWritten;
  }
}

async function giveTo(file: FileHandle, owner: WriteOptions["owner"]): Promise<void> {
  if (owner === undefined) return;
  const { uid, gid } = await file.stat();
  if (uid === owner.uid && gid === owner.gid) return;
  await file.chown(owner.uid, owner.gid).catch((error: unknown) => {
    // Without CAP_CHOWN, as in the DaemonSet.
    if (codeOf(error) !== "EPERM") throw error;
  });
}

/** Ours end in 12 hex digits, those of Go programs (istio-cni's) in decimal ones. */
const LEFTOVER = /^(.+)\.tmp\.(?:[0-9a-f]{12}|\d+)$/;

/**
 * Removes temporary files that writes of a killed process left in a directory, for the targets that
 * `isTarget` says yes to. Returns whether none is left.
 * @throws errors of the file system from reading the directory
 */
export async function removeLeftovers(directory: string, isTarget: (name: string) => boolean): Promise<boolean> {
  let left = false;
  for (const name of await readdir(directory)) {
    const target = LEFTOVER.exec(name)?.[1];
    const leftover = join(directory, name);
    if (target === undefined || !isTarget(target) || underWay.has(leftover)) continue;
    await unlink(leftover).catch((error: unknown) => {
      left ||= codeOf(error) !== "ENOENT";
    });
  }
  return !left;
}

/** Makes renames and removals in a directory last. @throws errors of the file system */
export async function syncDirectory(path: string): Promise<void> {
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

export interface ReadFile {
  readonly bytes: Buffer;
  /** Permission bits. */
  readonly mode: number;
  readonly owner: { readonly uid: number; readonly gid: number };
}

/**
 * Reads a whole regular file of at most `maxBytes`. Works for /proc, whose files have no size. Never
 * hangs on what somebody else put there: a FIFO, a socket, a directory, a device.
 * @throws AgentError FILE_TOO_LARGE | NOT_A_FILE naming the file; errors of the file system
 */
export async function readRegular(path: string, maxBytes: number): Promise<ReadFile> {
  // O_NONBLOCK: opening a FIFO that nobody writes to would hold a thread of Node's pool for good.
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
  try {
    const stat = await file.stat();
    if (!stat.isFile()) throw new AgentError("NOT_A_FILE", `${path} is no regular file`);
    if (stat.size > maxBytes) throw tooLarge(path, maxBytes);
    const owner = { uid: stat.uid, gid: stat.gid };
    return { bytes: await readAll(file, path, maxBytes), mode: stat.mode & 0o7777, owner };
  } finally {
    await file.close();
  }
}

/**
 * Whether a regular file holds exactly these bytes; asked synchronously, right before something is done about it.
 * Never hangs, as `readRegular`.
 * @throws AgentError NOT_A_FILE; errors of the file system
 */
export function holdsBytes(path: string, bytes: Uint8Array): boolean {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile()) throw new AgentError("NOT_A_FILE", `${path} is no regular file`);
    if (stat.size !== bytes.length) return false;
    // One byte more shows that it has grown meanwhile.
    const read = Buffer.allocUnsafe(bytes.length + 1);
    let total = 0;
    for (let more = -1; more !== 0 && total < read.length; total += more) {
      more = readSync(fd, read, total, read.length - total, null);
    }
    return read.subarray(0, total).equals(bytes);
  } finally {
    closeSync(fd);
  }
}

/** The bytes alone of `readRegular`. @throws as it does */
export async function readBounded(path: string, maxBytes: number): Promise<Buffer> {
  return (await readRegular(path, maxBytes)).bytes;
}

const tooLarge = (path: string, maxBytes: number): AgentError =>
  new AgentError("FILE_TOO_LARGE", `${path} is larger than ${maxBytes} bytes`);

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
    if (total > maxBytes) throw tooLarge(path, maxBytes);
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
