// SPDX-License-Identifier: Apache-2.0
import { lstatSync, readlinkSync } from "node:fs";
import { AgentError } from "../core/errors.ts";

/** As the kernel's (path_resolution(7)). */
const MAX_LINKS = 40;

/**
 * Where `path` of the system whose root is mounted at `root` is reached from here. Symbolic links lead to where
 * they lead there: on a node /var/run is a link to /run, which is its own /run and not ours. What does not exist
 * is not resolved. @throws AgentError LINK_LOOP
 */
export function rootedPath(root: string, path: string): string {
  if (root === "/") return path;
  let left = parts(path);
  let resolved: string[] = [];
  let links = 0;
  for (let name = left.shift(); name !== undefined; name = left.shift()) {
    if (name === ".") continue;
    if (name === "..") {
      resolved.pop();
      continue;
    }
    const target = linkTarget(`${root}/${[...resolved, name].join("/")}`);
    if (target === undefined) {
      resolved.push(name);
      continue;
    }
    links += 1;
    if (links > MAX_LINKS) throw new AgentError("LINK_LOOP", `${path} below ${root}: too many symbolic links`);
    if (target.startsWith("/")) resolved = [];
    left = [...parts(target), ...left];
  }
  return `${root.replace(/\/+$/, "")}/${resolved.join("/")}`;
}

function linkTarget(path: string): string | undefined {
  return lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() === true ? readlinkSync(path) : undefined;
}

function parts(path: string): string[] {
  return path.split("/").filter((part) => part !== "");
}
