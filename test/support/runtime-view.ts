// SPDX-License-Identifier: Apache-2.0
// What containerd and CRI-O make of a configuration directory: libcni's rules written once more, by
// themselves, so that the installer is not judged by its own reading of them.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

export interface RuntimeView {
  readonly file: string;
  /** Each plugin's configuration as it reaches the plugin. */
  readonly plugins: readonly string[];
}

type Json = Record<string, unknown>;

/**
 * The configuration by which pods start. CRI-O passes over broken files; containerd uses none while the
 * first is broken, which is an error here: nothing of ours may ever be.
 */
export function runtimeView(directory: string): RuntimeView | undefined {
  const names = readdirSync(directory).filter((name) => /\.(conf|conflist|json)$/.test(name));
  const [file] = names.sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  if (file === undefined) return undefined;
  const json = JSON.parse(readFileSync(join(directory, file), "latin1")) as Json;
  const isList = file.endsWith(".conflist");
  const plugins = isList ? (json.plugins as Json[]) : [json];
  if (isList && typeof json.name !== "string") throw new Error(`${file} has no name`);
  const cniVersion =
    !isList && ["", "0.1.0", "0.2.0", undefined].includes(field(json, "cniVersion"))
      ? "0.3.1"
      : field(json, "cniVersion");
  const injected = { name: field(json, "name") ?? "", cniVersion };
  return {
    file,
    plugins: plugins.map((plugin) => {
      const type = field(plugin, "type");
      if (type === undefined || type === "") throw new Error(`${file} has a plugin without a type`);
      const own = Object.entries(plugin).filter(([key]) => !["name", "cniversion"].includes(key.toLowerCase()));
      return JSON.stringify({ ...Object.fromEntries(own), ...injected });
    }),
  };
}

/** As Go finds a field: whatever its case. */
function field(object: Json, name: string): string | undefined {
  const [, value] = Object.entries(object).find(([key]) => key.toLowerCase() === name.toLowerCase()) ?? [];
  return value === undefined ? undefined : String(value);
}
