// SPDX-License-Identifier: Apache-2.0
// Reads what pack.ts writes, from whoever it may come: nothing is written to disk, and nothing is believed.
import { gunzipSync } from "node:zlib";
import { AgentError, messageOf } from "../../core/errors.ts";
import { ITEM_MAX_BYTES, REPORT_MAX_BYTES, TOP } from "./layout.ts";

const BLOCK = 512;
const MAX_ENTRIES = 20_000;

/**
 * Files of a report by path.
 * @throws AgentError REPORT_INVALID saying what is wrong with it
 */
export function unpackReport(archive: Uint8Array): ReadonlyMap<string, Buffer> {
  return filesOf(gunzipped(archive));
}

const invalid = (why: string): AgentError => new AgentError("REPORT_INVALID", `no bug report: ${why}`);

function gunzipped(archive: Uint8Array): Buffer {
  try {
    return gunzipSync(archive, { maxOutputLength: REPORT_MAX_BYTES });
  } catch (error) {
    if (error instanceof RangeError) throw invalid(`it unpacks to more than ${REPORT_MAX_BYTES >> 20} MiB`);
    throw invalid(`it can't be unpacked: ${messageOf(error)}`);
  }
}

function filesOf(tar: Buffer): ReadonlyMap<string, Buffer> {
  const files = new Map<string, Buffer>();
  let extended: string | undefined;
  let entries = 0;
  for (let at = 0; ; ) {
    if (at + BLOCK > tar.length) throw invalid("it ends too early");
    const header = tar.subarray(at, at + BLOCK);
    if (header.every((byte) => byte === 0)) return files;
    entries += 1;
    if (entries > MAX_ENTRIES) throw invalid(`more than ${MAX_ENTRIES} entries`);
    const { name, size, type } = parseHeader(header);
    const content = tar.subarray(at + BLOCK, at + BLOCK + size);
    if (content.length < size) throw invalid(`it ends within ${JSON.stringify(name)}`);
    at += BLOCK + Math.ceil(size / BLOCK) * BLOCK;
    if (type === "x") {
      extended = pathRecord(content);
      continue;
    }
    const path = plainPath(extended ?? name);
    extended = undefined;
    if (type === "5") continue;
    if (type !== "0") throw invalid(`${JSON.stringify(path)} is neither a file nor a folder`);
    if (files.has(path)) throw invalid(`${JSON.stringify(path)} is in it twice`);
    files.set(path, content);
  }
}

interface Header {
  readonly name: string;
  readonly size: number;
  readonly type: string;
}

function parseHeader(header: Buffer): Header {
  const sum = header.reduce((total, byte, index) => total + (index >= 148 && index < 156 ? 32 : byte), 0);
  if (octal(header, 148, 8) !== sum) throw invalid("the checksum of an entry is wrong");
  const name = header.toString("utf8", 0, 100).split("\0", 1)[0] ?? "";
  const size = octal(header, 124, 12);
  if (!(size <= ITEM_MAX_BYTES)) throw invalid(`the size of ${JSON.stringify(name)} is wrong`);
  return { name, size, type: header.toString("latin1", 156, 157) };
}

function octal(header: Buffer, at: number, length: number): number {
  const text = header.toString("latin1", at, at + length).replace(/[\0 ]+$/, "");
  return /^[0-7]{1,11}$/.test(text) ? Number.parseInt(text, 8) : Number.NaN;
}

/** Names of more than 100 bytes: `LENGTH path=NAME\n`, and pack.ts writes no other record. */
function pathRecord(content: Buffer): string {
  const [, path] = /^\d{1,4} path=([^\n]{1,1024})\n$/.exec(content.toString("utf8")) ?? [];
  if (path === undefined) throw invalid("it has an entry of an unknown kind");
  return path;
}

/** @throws AgentError for a path that leaves the folder of the report */
function plainPath(name: string): string {
  const [top, ...parts] = name.replace(/\/$/, "").split("/");
  const odd = parts.some((part) => part === "" || part === "." || part === ".." || part.includes("\0"));
  if (top !== TOP || odd) throw invalid(`${JSON.stringify(name)} has no place in it`);
  return parts.join("/");
}
