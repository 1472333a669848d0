// SPDX-License-Identifier: Apache-2.0
// What `npm run build:image` made.
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const inRepository = (path: string) => fileURLToPath(new URL(`../../../${path}`, import.meta.url));
const { version } = JSON.parse(readFileSync(inRepository("package.json"), "utf8")) as { version: string };

export const AGENT_IMAGE = `localhost/ambient-cni:${version}`;

/** Path of the archive for this machine. @throws Error when it has not been built */
export function agentArchive(): string {
  const path = inRepository(`dist/image/ambient-cni-${version}-${process.arch}.oci.tar`);
  if (!existsSync(path)) throw new Error(`${path} is missing: run npm run build:image`);
  return path;
}
