// SPDX-License-Identifier: Apache-2.0
// A small node: network namespaces, processes in them, cgroups named as kubelet names them, and a
// proc directory that a test can write itself.
import { type ChildProcess, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Pod } from "../../../src/core/pod.ts";
import type { Logger } from "../../../src/core/ports/telemetry.ts";
import { native } from "../../../src/native/load.ts";
import { createNetns, type HeldNetns } from "../../../src/native/netns.ts";
import { podWith as anyPod } from "../../support/pod.ts";

export const quiet: Logger = { debug() {}, info() {}, warn() {}, error() {}, child: () => quiet };

export function podWith(uid: string, ips: readonly string[], over: Partial<Pod> = {}): Pod {
  return anyPod({ uid, name: `p-${uid.slice(0, 8)}`, ips, ...over });
}

function cgroup2(): string {
  const line = readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .find((one) => one.includes(" - cgroup2 "));
  const path = line?.split(" ")[4];
  if (path === undefined) throw new Error("no cgroup2 file system is mounted");
  return path;
}

export class World {
  readonly dir = mkdtempSync(join(tmpdir(), "ambient-netns-"));
  readonly #children: ChildProcess[] = [];
  readonly #namespaces: HeldNetns[] = [];
  readonly #cgroups: string[] = [];
  readonly #root = join(cgroup2(), `ambient-test-${randomUUID().slice(0, 8)}`);

  /** A netns whose lo has these addresses. */
  netns(...ips: string[]): HeldNetns {
    const netns = createNetns();
    this.#namespaces.push(netns);
    for (const ip of ips) native().addressAdd(netns.fd, "lo", ip, ip.includes(":") ? 128 : 32);
    return netns;
  }

  /** A cgroup below a root of this world; real, in cgroup v2. */
  cgroup(path: string): string {
    let full = this.#root;
    for (const part of ["", ...path.split("/").filter((one) => one !== "")]) {
      full = join(full, part);
      if (!this.#cgroups.includes(full)) {
        mkdirSync(full, { recursive: true });
        this.#cgroups.push(full);
      }
    }
    return full;
  }

  /** A process in this netns (undefined = ours) and cgroup, until the world ends. */
  async process(netns: HeldNetns | undefined, cgroup?: string): Promise<string> {
    // `cat` waits on its stdin, so it ends with us whatever happens; nsenter execs, so the pid stays.
    const child =
      netns === undefined
        ? spawn("cat", [], { stdio: ["pipe", "pipe", "ignore"] })
        : spawn("nsenter", ["--net=/proc/self/fd/3", "cat"], { stdio: ["pipe", "pipe", "ignore", netns.fd] });
    this.#children.push(child);
    const answered = new Promise((resolve, reject) => {
      child.stdout?.once("data", resolve);
      child.once("error", reject);
      child.once("exit", () => reject(new Error("the process ended")));
    });
    child.stdin?.write("up\n");
    await answered;
    const pid = String(child.pid);
    if (cgroup !== undefined) writeFileSync(join(cgroup, "cgroup.procs"), pid);
    return pid;
  }

  /** Ends a process of this world and waits until it is reaped. */
  async end(pid: string): Promise<void> {
    const child = this.#children.find((one) => String(one.pid) === pid);
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGKILL");
    await gone;
  }

  /** An entry of a hand-made proc directory. `netns` undefined: an entry whose netns cannot be read. */
  fakeProcess(
    pid: number,
    netns: HeldNetns | undefined,
    cgroup: string,
    startTime: number,
    comm = "app",
    flags = 0,
  ): void {
    const entry = join(this.dir, "proc", String(pid));
    mkdirSync(join(entry, "ns"), { recursive: true });
    if (netns !== undefined) symlinkSync(`/proc/${process.pid}/fd/${netns.fd}`, join(entry, "ns", "net"));
    writeFileSync(join(entry, "cgroup"), cgroup);
    writeFileSync(
      join(entry, "stat"),
      `${pid} (${comm}) S 1 1 1 0 -1 ${flags} 0 0 0 0 1 2 3 4 20 0 1 0 ${startTime} 9 9\n`,
    );
  }

  get procDir(): string {
    return join(this.dir, "proc");
  }

  async close(): Promise<void> {
    for (const child of this.#children) await this.end(String(child.pid));
    for (const netns of this.#namespaces) netns.close();
    for (const path of this.#cgroups.reverse()) await removeCgroup(path);
    rmSync(this.dir, { recursive: true, force: true });
  }
}

async function removeCgroup(path: string): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    try {
      rmdirSync(path);
      return;
    } catch (error) {
      // EBUSY until the kernel has let go of the last process.
      if (attempt >= 100) throw error;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}
