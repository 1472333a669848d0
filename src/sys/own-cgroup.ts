// SPDX-License-Identifier: Apache-2.0
import { readFileSync, writeFileSync } from "node:fs";
import { AgentError, messageOf } from "../core/errors.ts";
import { parseMountinfo } from "./mountinfo.ts";

/**
 * Moves this process into the cgroup2 of another one, for the rest of its life: sockets that it makes from
 * here on belong to that cgroup, and meet the programs attached to it and above.
 * @throws AgentError CGROUP_JOIN that says why
 */
export function joinCgroupOf(procDir: string, pid: string): void {
  const fail = (why: string, cause?: unknown) =>
    new AgentError("CGROUP_JOIN", `can't join the cgroup of process ${pid}: ${why}`, undefined, { cause });
  const mount = parseMountinfo(readFileSync("/proc/self/mountinfo", "utf8")).find(({ type }) => type === "cgroup2");
  if (mount === undefined) throw fail("no cgroup2 file system is mounted");
  try {
    const path = /^0::(.*)$/m.exec(readFileSync(`${procDir}/${pid}/cgroup`, "utf8"))?.[1];
    if (path === undefined) throw fail("it has none");
    // Both are written as this process' cgroup namespace sees them; the mount may begin further in.
    const root = mount.root === "/" ? "" : mount.root;
    if (!`${path}/`.startsWith(`${root}/`)) throw fail(`${path} is not below ${mount.root}, which is mounted`);
    writeFileSync(`${mount.point}${path.slice(root.length)}/cgroup.procs`, String(process.pid));
  } catch (error) {
    throw error instanceof AgentError ? error : fail(messageOf(error), error);
  }
}
