// SPDX-License-Identifier: Apache-2.0
import { closeSync, openSync, readdirSync, readSync, statSync } from "node:fs";

/** The largest of the files read here; cgroup, stat and netstat come whole with one read, as seq_file gives one record. */
const buffer = Buffer.allocUnsafe(65_536);
/** include/linux/sched.h */
const PF_KTHREAD = 0x0020_0000;

export interface ProcessStat {
  readonly comm: string;
  /** One letter (proc_pid_stat(5)): T stopped by a signal, t by a debugger, Z ended, ... */
  readonly state: string;
  /** Ticks since boot; orders processes by age, also where pids have wrapped. */
  readonly startTime: bigint;
  readonly kernelThread: boolean;
}

/**
 * A mounted proc: the node's may be at /host/proc. Synchronous, because one call takes 10-30 us and
 * a thread-pool round trip more; callers pause between portions. Every method throws when the
 * process is gone or may not be read.
 */
export class Proc {
  constructor(readonly dir: string) {}

  /** Pids in the order of the directory. */
  pids(): string[] {
    return readdirSync(this.dir).filter((name) => {
      const first = name.charCodeAt(0);
      return first >= 48 && first <= 57;
    });
  }

  netnsPath(pid: string): string {
    return `${this.dir}/${pid}/ns/net`;
  }

  /** The file system as the process has it. Needs PTRACE_MODE_READ on the process. */
  rootPath(pid: string): string {
    return `${this.dir}/${pid}/root`;
  }

  /** `dev:ino` of the process's network namespace. Needs PTRACE_MODE_READ on the process. */
  netnsId(pid: string): string {
    const { dev, ino } = statSync(this.netnsPath(pid), { bigint: true });
    return `${dev}:${ino}`;
  }

  /** /proc/PID/cgroup, paths as seen from our cgroup namespace. World-readable. */
  cgroup(pid: string): string {
    return read(`${this.dir}/${pid}/cgroup`);
  }

  stat(pid: string): ProcessStat {
    return parseStat(read(`${this.dir}/${pid}/stat`));
  }

  /** Counters of the process's network namespace. */
  netstat(pid: string): string {
    return read(`${this.dir}/${pid}/net/netstat`);
  }

  /** Arguments of the process's program; empty for a kernel thread. */
  argv(pid: string): string[] {
    return read(`${this.dir}/${pid}/cmdline`).split("\0").slice(0, -1);
  }

  /** Real uid, as our user namespace sees it. */
  uid(pid: string): number {
    const uid = /^Uid:\s+(\d+)/m.exec(read(`${this.dir}/${pid}/status`))?.[1];
    if (uid === undefined) throw new Error(`process ${pid} has no uid in its status`);
    return Number(uid);
  }
}

/** Parses /proc/PID/stat (proc_pid_stat(5)). The name may contain anything, `) ` included: fields count from its last `)`. */
export function parseStat(text: string): ProcessStat {
  const open = text.indexOf("(");
  const close = text.lastIndexOf(")");
  const fields = text.slice(close + 2).split(" ");
  // Field 3 (state) is fields[0]: field 9 is flags, field 22 starttime.
  const [state = "", flags, startTime] = [fields[0], fields[6], fields[19]];
  if (open < 0 || close < open || !/^\d+$/.test(flags ?? "") || !/^\d+$/.test(startTime ?? "")) {
    throw new Error(`malformed process status: ${JSON.stringify(text.slice(0, 80))}`);
  }
  return {
    comm: text.slice(open + 1, close),
    state,
    startTime: BigInt(startTime ?? ""),
    kernelThread: (Number(flags) & PF_KTHREAD) !== 0,
  };
}

function read(path: string): string {
  const fd = openSync(path, "r");
  try {
    return buffer.toString("utf8", 0, readSync(fd, buffer, 0, buffer.length, 0));
  } finally {
    closeSync(fd);
  }
}
