// SPDX-License-Identifier: Apache-2.0
// Finds and loads the addon, once. Everything else of the project gets at it through native().
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { NativeBinding } from "./binding.ts";
import { NativeError } from "./fault.ts";

/** Equal to kAbiVersion in native/addon.cc. */
const ABI_VERSION = 14;

let loaded: NativeBinding | undefined;

/**
 * The addon, loaded at first use.
 * @throws Error that lists every place tried and why it failed.
 */
export function native(): NativeBinding {
  loaded ??= loadFrom(addonPaths(dirname(fileURLToPath(import.meta.url)), process.env.AMBIENT_CNI_ADDON));
  return loaded;
}

/** Where the addon may lie: `override` alone, or beside the bundle, or in a checkout's build folder. */
export function addonPaths(folder: string, override: string | undefined): readonly string[] {
  if (override !== undefined && override !== "") return [override];
  const built = join("build", "cmake", "Release", "ambient.node");
  return [join(folder, "agent.node"), join(folder, "..", built), join(folder, "..", "..", built)];
}

/** Loads the first addon that loads and fits. */
export function loadFrom(paths: readonly string[]): NativeBinding {
  const require = createRequire(import.meta.url);
  const failures: string[] = [];
  for (const path of paths) {
    try {
      const binding: NativeBinding = require(path);
      if (binding.abiVersion !== ABI_VERSION) {
        throw new Error(`it speaks ABI ${binding.abiVersion}, this program ABI ${ABI_VERSION}: rebuild it`);
      }
      binding.setErrorClass(NativeError);
      return binding;
    } catch (error) {
      const [reason] = (error instanceof Error ? error.message : String(error)).split("\n");
      failures.push(`  ${path}: ${reason}`);
    }
  }
  throw new Error(
    `could not load the native addon for ${process.platform}-${process.arch}, Node ${process.version}. Tried:\n` +
      `${failures.join("\n")}\n` +
      "Build it with `npx cmake-js compile -O build/cmake`, or name one in AMBIENT_CNI_ADDON.",
  );
}
