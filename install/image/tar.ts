// SPDX-License-Identifier: Apache-2.0
// POSIX tar (pax), as docs: https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html
import { createHash } from "node:crypto";
import { closeSync, openSync, writeSync } from "node:fs";
import { bytesOf, type Entry } from "./tree.ts";

const BLOCK = 512;
const NAME_BYTES = 100;
/** Eleven octal digits. */
const MAX_SIZE = 0o77777777777;

/** What a file holds, by content. */
export interface Written {
  readonly sha256: string;
  readonly size: number;
}

/**
 * Writes entries in the order given: the same entries are the same bytes, on any machine. All are root's
 * and of one time (seconds since 1970).
 * @throws Error for a file of 8 GiB or more, or of the file system.
 */
export function writeTar(path: string, entries: readonly Entry[], mtime = 0): Written {
  const hash = createHash("sha256");
  let size = 0;
  const fd = openSync(path, "w", 0o644);
  try {
    for (const bytes of tarBlocks(entries, mtime)) {
      hash.update(bytes);
      for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done);
      size += bytes.length;
    }
  } finally {
    closeSync(fd);
  }
  return { sha256: hash.digest("hex"), size };
}

/** The bytes that writeTar writes, piece by piece. @throws Error as writeTar */
export function* tarBlocks(entries: readonly Entry[], mtime = 0): Generator<Uint8Array> {
  for (const entry of entries) {
    const content = entry.type === "file" ? bytesOf(entry.content) : new Uint8Array();
    if (content.length > MAX_SIZE) throw new Error(`${entry.path}: ${content.length} bytes are too many for tar`);
    yield* headers(entry, content.length, mtime);
    yield content;
    yield padding(content.length);
  }
  yield Buffer.alloc(2 * BLOCK);
}

function padding(length: number): Buffer {
  return Buffer.alloc((BLOCK - (length % BLOCK)) % BLOCK);
}

const TYPES = { file: "0", symlink: "2", directory: "5" } as const;

function headers(entry: Entry, size: number, mtime: number): Buffer[] {
  const name = entry.type === "directory" ? `${entry.path}/` : entry.path;
  const target = entry.type === "symlink" ? entry.target : "";
  const records = [...record("path", name), ...record("linkpath", target)];
  const mode = entry.type === "symlink" ? 0o777 : entry.mode;
  const own = header({ name, target, mode, size, mtime, type: TYPES[entry.type] });
  if (records.length === 0) return [own];
  const body = Buffer.concat(records);
  const extra = header({ name: "PaxHeader", target: "", mode: 0o644, size: body.length, mtime, type: "x" });
  return [extra, body, padding(body.length), own];
}

/** What the fixed fields can't hold goes into a record `LENGTH key=value\n`, whose length counts itself. */
function record(key: string, value: string): Buffer[] {
  const bytes = Buffer.byteLength(value);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: what is not ASCII has no agreed encoding in the fixed fields
  if (bytes <= NAME_BYTES && /^[\x00-\x7f]*$/.test(value)) return [];
  const rest = ` ${key}=${value}\n`;
  let length = Buffer.byteLength(rest);
  while (Buffer.byteLength(`${length}${rest}`) !== length) length = Buffer.byteLength(`${length}${rest}`);
  return [Buffer.from(`${length}${rest}`)];
}

interface Header {
  readonly name: string;
  readonly target: string;
  readonly mode: number;
  readonly size: number;
  readonly mtime: number;
  readonly type: string;
}

function header({ name, target, mode, size, mtime, type }: Header): Buffer {
  const block = Buffer.alloc(BLOCK);
  const octal = (value: number, at: number, digits: number) =>
    block.write(value.toString(8).padStart(digits, "0"), at, digits, "latin1");
  Buffer.from(name).copy(block, 0, 0, NAME_BYTES);
  octal(mode, 100, 7);
  octal(0, 108, 7);
  octal(0, 116, 7);
  octal(size, 124, 11);
  octal(mtime, 136, 11);
  block.fill(" ", 148, 156);
  block.write(type, 156, "latin1");
  Buffer.from(target).copy(block, 157, 0, NAME_BYTES);
  block.write("ustar\x0000", 257, "latin1");
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return block;
}
