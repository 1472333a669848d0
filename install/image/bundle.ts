// SPDX-License-Identifier: Apache-2.0
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type LicenceText, licenceTexts } from "./npm-licences.ts";
import { runProgram } from "./process.ts";

/** A package of npm of which something is in the bundle. */
export interface NpmPackage {
  readonly name: string;
  readonly version: string;
  /** As package.json has it: an SPDX expression. */
  readonly licence: string;
  readonly texts: readonly LicenceText[];
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
  const sources = new Map<string, string[]>();
  for (const { inputs } of Object.values(outputs)) {
    for (const [path, { bytesInOutput }] of Object.entries(inputs)) {
      const folder = /^(?:.*\/)?node_modules\/(?:@[^/]+\/)?[^/]+/.exec(path)?.[0];
      if (folder !== undefined && bytesInOutput > 0) sources.set(folder, [...(sources.get(folder) ?? []), path]);
    }
  }
  const found = [...sources].map(([folder, files]) => readPackage(folder, files));
  const byId = new Map(found.map((one) => [`${one.name}@${one.version}`, one]));
  return [...byId].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, one]) => one);
}

function readPackage(folder: string, sources: readonly string[]): NpmPackage {
  const { name, version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  if (typeof license !== "string") throw new Error(`${folder}/package.json names no licence`);
  return { name, version, licence: license, texts: licenceTexts(folder, sources) };
}
