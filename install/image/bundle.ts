// SPDX-License-Identifier: Apache-2.0
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { runProgram } from "./process.ts";

/** A package of npm of which something is in the bundle. */
export interface NpmPackage {
  readonly name: string;
  readonly version: string;
  /** As package.json has it: an SPDX expression. */
  readonly licence: string;
  /** Its licence texts. */
  readonly texts: readonly string[];
}

export interface Bundle {
  /** Files that belong side by side; agent.mjs is the entry. */
  readonly files: readonly string[];
  readonly packages: readonly NpmPackage[];
}

/** The same bundle as scripts/build makes, in a folder of its own. */
export async function makeBundle(folder: string): Promise<Bundle> {
  const metafile = `${folder}.json`;
  await runProgram([process.execPath, "scripts/bundle.mjs", "--out", folder, "--metafile", metafile]);
  return {
    files: readdirSync(folder)
      .filter((name) => name.endsWith(".mjs"))
      .sort()
      .map((name) => join(folder, name)),
    packages: bundledPackages(JSON.parse(readFileSync(metafile, "utf8"))),
  };
}

interface Metafile {
  readonly outputs: Readonly<Record<string, { readonly inputs: Readonly<Record<string, { bytesInOutput: number }>> }>>;
}

/** Sorted; a package that is there in two versions comes twice. */
function bundledPackages({ outputs }: Metafile): readonly NpmPackage[] {
  const folders = new Set<string>();
  for (const { inputs } of Object.values(outputs)) {
    for (const [path, { bytesInOutput }] of Object.entries(inputs)) {
      const folder = /^(?:.*\/)?node_modules\/(?:@[^/]+\/)?[^/]+/.exec(path)?.[0];
      if (folder !== undefined && bytesInOutput > 0) folders.add(folder);
    }
  }
  const byId = new Map([...folders].map(readPackage).map((found) => [`${found.name}@${found.version}`, found]));
  return [...byId].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, found]) => found);
}

function readPackage(folder: string): NpmPackage {
  const { name, version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  if (typeof license !== "string") throw new Error(`${folder}/package.json names no licence`);
  const texts = readdirSync(folder)
    .filter((file) => /^(licen[cs]e|copying|notice)([.-].*)?$/i.test(file))
    .sort()
    .map((file) => join(folder, file));
  return { name, version, licence: license, texts };
}
