// SPDX-License-Identifier: Apache-2.0
import { mkdirSync, writeFileSync } from "node:fs";
import type { SandboxNode } from "./node.ts";
import { directoriesOf } from "./node-command.ts";

/** A word that a shell takes as it is. */
const quoted = (word: string): string => `'${word.replaceAll("'", "'\\''")}'`;

/** $0: where the user is. Entering the node's mount namespace leads to its /, and files that a command names are elsewhere. */
const FROM_HERE = 'cd "$0"; exec "$@"';

/**
 * Writes a program `ambient-cni` for who plays with a sandbox: from any shell of the machine it runs on the node, as
 * its owner would; but another sandbox is the machine's. Returns its directory.
 */
export function writeEntrance(node: SandboxNode, program: string): string {
  const directory = node.path("bin");
  const settings = Object.entries(directoriesOf(node)).map(([name, value]) => `${name}=${value}`);
  const command = ["env", ...settings, process.execPath, program];
  const enter = node.enter(["sh", "-c", FROM_HERE], `${node.cgroups.root}/system/init`);
  const words = [...enter.map(quoted), '"$PWD"', ...command.map(quoted), '"$@"'];
  const here = [process.execPath, program].map(quoted).join(" ");
  const script = `#!/bin/sh\n[ "$1" != sandbox ] || exec ${here} "$@"\nexec ${words.join(" ")}\n`;
  mkdirSync(directory, { recursive: true });
  writeFileSync(`${directory}/ambient-cni`, script, { mode: 0o755 });
  return directory;
}
