// SPDX-License-Identifier: Apache-2.0
import { promisify } from "node:util";
import { gzip } from "node:zlib";
import { tarBlocks } from "../../../install/image/tar.ts";
import { Tree } from "../../../install/image/tree.ts";
import { TOP } from "./layout.ts";

/** A gzipped tar of these files by path, all of the same time. */
export async function packReport(files: ReadonlyMap<string, Buffer>, takenAt: Date): Promise<Buffer> {
  const tree = new Tree();
  for (const [path, content] of files) tree.add({ type: "file", path: `${TOP}/${path}`, mode: 0o600, content });
  const blocks = [...tarBlocks(tree.entries(), Math.floor(takenAt.getTime() / 1000))];
  return promisify(gzip)(Buffer.concat(blocks));
}
