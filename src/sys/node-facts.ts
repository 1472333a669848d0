// SPDX-License-Identifier: Apache-2.0
// What of a node explains why something works on it or not, read from its files. Nothing is run and nothing written.
import { lstatSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { release, version } from "node:os";
import { join } from "node:path";
import { codeOf } from "../core/errors.ts";

/** Below /proc/sys; those of a network namespace are read in it (see `netnsDump`). */
const SYSCTLS = [
  "kernel/unprivileged_bpf_disabled",
  "kernel/keys/root_maxbytes",
  "net/core/bpf_jit_enable",
  "net/core/bpf_jit_harden",
  "user/max_net_namespaces",
  "vm/memfd_noexec",
] as const;
/** Types of file systems that capture stands on. */
const MOUNTS = /^\S+ \S+ \S+ \S+ (\S+) .* - (cgroup2?|bpf|proc|sysfs|securityfs) /;
const MAX_MOUNTS = 100;
const MAX_ENTRIES = 2000;
const MAX_TEXT = 64 * 1024;

/** By name; a fact that can't be read is why. */
export function nodeFacts(procDir: string): Readonly<Record<string, unknown>> {
  const root = join(procDir, "1/root");
  return {
    kernel: `${release()} ${version()}`,
    os: text(join(root, "etc/os-release"))?.split("\n"),
    commandLine: text(join(procDir, "cmdline")),
    uptime: text(join(procDir, "uptime")),
    load: text(join(procDir, "loadavg")),
    memory: text(join(procDir, "meminfo"))?.split("\n").slice(0, 5),
    lsm: text(join(root, "sys/kernel/security/lsm")),
    lockdown: text(join(root, "sys/kernel/security/lockdown")),
    cgroupControllers: text(join(root, "sys/fs/cgroup/cgroup.controllers")),
    modules: text(join(procDir, "modules"))
      ?.split("\n")
      .map((line) => line.split(" ")[0])
      .sort(),
    sysctls: Object.fromEntries(SYSCTLS.map((key) => [key, text(join(procDir, "sys", key))])),
    mounts: mounts(join(procDir, "1/mountinfo")),
    own: {
      capabilities: text("/proc/self/status")
        ?.split("\n")
        .filter((line) => /^(Cap|Seccomp|NoNewPrivs)/.test(line)),
      cgroup: text("/proc/self/cgroup"),
      lsmContext: text("/proc/self/attr/current"),
      memlock: text("/proc/self/limits")
        ?.split("\n")
        .find((line) => line.startsWith("Max locked")),
      mounts: mounts("/proc/self/mountinfo"),
    },
  };
}

/** `ls -l` of a directory, and of those below it as deep as told; names are what is asked, contents never. */
export function listing(directory: string, depth = 0): readonly string[] {
  const lines: string[] = [];
  const visit = (path: string, below: string, left: number) => {
    for (const name of readdirSync(path).sort()) {
      if (lines.length >= MAX_ENTRIES) return;
      const shown = `${below}${name}`;
      try {
        const { mode, uid, gid, size, mtime } = lstatSync(join(path, name));
        const target = (mode & 0o170000) === 0o120000 ? ` -> ${readlinkSync(join(path, name))}` : "";
        lines.push(
          `${mode.toString(8).padStart(6, "0")} ${uid}:${gid} ${size} ${mtime.toISOString()} ${shown}${target}`,
        );
        if ((mode & 0o170000) === 0o040000 && left > 0) visit(join(path, name), `${shown}/`, left - 1);
      } catch (error) {
        lines.push(`${shown}: ${codeOf(error)}`);
      }
    }
  };
  visit(directory, "", depth);
  return lines.length < MAX_ENTRIES ? lines : [...lines, `more than ${MAX_ENTRIES}`];
}

function mounts(path: string): readonly string[] | undefined {
  return text(path, 1 << 20)
    ?.split("\n")
    .filter((line) => MOUNTS.test(line))
    .slice(0, MAX_MOUNTS);
}

/** Files of /proc and /sys have no size, and those that a pod could have made do not matter here. */
function text(path: string, max = MAX_TEXT): string | undefined {
  try {
    return readFileSync(path, "utf8").slice(0, max).trim();
  } catch (error) {
    return `? ${codeOf(error)}`;
  }
}
