// SPDX-License-Identifier: Apache-2.0
import { lstatSync, realpathSync } from "node:fs";
import { join } from "node:path";
import { AgentError, codeOf, messageOf } from "../core/errors.ts";
import { type HeldNetns, openNetns } from "../native/netns.ts";
import type { Proc } from "../sys/proc.ts";

const PROCESS_NETNS = /^\/proc\/([1-9]\d{0,9})(?:\/task\/[1-9]\d{0,9})?\/ns\/net$/;
/** A netns by name, as `ip netns` and container runtimes keep them. */
const NAMED = /\/netns\/([^/]+)$/;
const MAX_PATH = 4096;

/**
 * Opens a netns path of the host as the runtime gave it to the plugin (CNI_NETNS). `/proc/PID/ns/net`
 * is read in the node's proc; anything else below `hostRoot`. The runtime is trusted, the file system
 * below hostRoot is not: a path that leaves it, by `..` or by a symbolic link, is refused.
 * @throws AgentError NETNS_PATH_INVALID | NETNS_NOT_FOUND | NETNS_UNREADABLE
 */
export function openNetnsPath(hostPath: string, hostRoot: string, proc: Proc): HeldNetns {
  const shown = JSON.stringify(hostPath.slice(0, 200));
  const parts = hostPath.split("/");
  if (!hostPath.startsWith("/") || hostPath.length > MAX_PATH || hostPath.includes("\0") || parts.includes("..")) {
    throw new AgentError("NETNS_PATH_INVALID", `the network namespace ${shown} is not an absolute path without '..'`);
  }
  const [, pid] = PROCESS_NETNS.exec(hostPath) ?? [];
  const root = hostRoot === "/" ? "" : hostRoot;
  const path = pid === undefined ? pathOf(hostPath, root, proc, shown) : proc.netnsPath(pid);
  try {
    return openNetns(path);
  } catch (cause) {
    if (codeOf(cause) === "ENOENT") throw notFound(shown, path, cause);
    if (codeOf(cause) === "EINVAL") {
      throw new AgentError("NETNS_PATH_INVALID", `${shown} is not a network namespace`, undefined, { cause });
    }
    const message = `cannot open the network namespace ${shown} at ${path}: ${messageOf(cause)}`;
    throw new AgentError("NETNS_UNREADABLE", message, "the agent needs CAP_SYS_PTRACE and CAP_SYS_ADMIN", { cause });
  }
}

/** Below the host root, else through the node's pid 1: without ambient the stock chart mounts no netns directory. */
function pathOf(hostPath: string, root: string, proc: Proc, shown: string): string {
  try {
    return firstBelow(root, alternatives(hostPath), shown);
  } catch (error) {
    const [, name] = NAMED.exec(hostPath) ?? [];
    // Only a directory that no link leads to: an absolute one would lead into our own file system.
    const path = join(proc.rootPath("1"), "run/netns", name ?? "");
    if (name !== undefined && codeOf(error) === "NETNS_NOT_FOUND" && isPlainFile(path)) return path;
    throw error;
  }
}

function isPlainFile(path: string): boolean {
  try {
    return lstatSync(path).isFile();
  } catch {
    return false;
  }
}

/**
 * Where a host path may be reached. The chart mounts one directory of the host (cniNetnsDir) at
 * /var/run/netns, whatever its name there; runtimes write /run/netns or /var/run/netns for the same.
 */
function alternatives(hostPath: string): string[] {
  const [, name] = NAMED.exec(hostPath) ?? [];
  if (name === undefined) return [hostPath];
  return [...new Set([hostPath, `/var/run/netns/${name}`, `/run/netns/${name}`])];
}

function firstBelow(root: string, paths: readonly string[], shown: string): string {
  let cause: unknown;
  let escaped: string | undefined;
  for (const path of paths) {
    try {
      const real = realpathSync(root + path);
      if (real.startsWith(`${root === "" ? "" : realpathSync(root)}/`)) return real;
      escaped ??= real;
    } catch (error) {
      cause ??= error;
    }
  }
  if (escaped !== undefined) {
    throw new AgentError("NETNS_PATH_INVALID", `the network namespace ${shown} leads out of ${root}, to ${escaped}`);
  }
  throw notFound(shown, root + (paths[0] ?? ""), cause);
}

function notFound(shown: string, path: string, cause: unknown): AgentError {
  return new AgentError(
    "NETNS_NOT_FOUND",
    `the network namespace ${shown} is not there at ${path}`,
    "the sandbox may be gone already; if this happens for every pod, mount the runtime's netns directory (cniNetnsDir) at /var/run/netns below the host root",
    { cause },
  );
}
