// SPDX-License-Identifier: Apache-2.0
import { mkdirSync, writeFileSync } from "node:fs";
import type { SandboxNode } from "./node.ts";
import { directoriesOf } from "./node-command.ts";

/** A word that a shell takes as it is. */
const quoted = (word: string): string => `'${word.replaceAll("'", "'\\''")}'`;

/**
 * Writes a program `ambient-cni` for who plays with a sandbox: from any shell of the machine it runs on the node, as
 * its owner would. Returns its directory.
 */
export function writeEntrance(node: SandboxNode, program: string): string {
  const directory = node.path("bin");
  const settings = Object.entries(directoriesOf(node)).map(([name, value]) => `${name}=${value}`);
  const command = ["env", ...settings, process.execPath, program];
  const enter = node.enter(command, `${node.cgroups.root}/system/init`);
  mkdirSync(directory, { recursive: true });
  writeFileSync(`${directory}/ambient-cni`, `#!/bin/sh\nexec ${enter.map(quoted).join(" ")} "$@"\n`, { mode: 0o755 });
  return directory;
}
