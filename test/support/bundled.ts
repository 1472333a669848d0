// SPDX-License-Identifier: Apache-2.0
// A program of the tests in one file, for places that can't see the checkout, with the addon beside it.
import { existsSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { build } from "esbuild";
import { addonPaths } from "../../src/native/load.ts";
import type { ScratchDir } from "./scratch-dir.ts";

/** Returns its path. */
export async function bundled(entry: string, scratch: ScratchDir): Promise<string> {
  const outfile = scratch.file("program.mjs");
  await build({
    entryPoints: [join(import.meta.dirname, entry)],
    outfile,
    bundle: true,
    platform: "node",
    format: "esm",
    target: "node20",
    logLevel: "error",
  });
  const addon = addonPaths(join(import.meta.dirname, "../../src/native"), process.env.AMBIENT_CNI_ADDON).find(
    existsSync,
  );
  if (addon === undefined) throw new Error("the addon is not built");
  symlinkSync(addon, scratch.file("agent.node"));
  return outfile;
}
