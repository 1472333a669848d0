// SPDX-License-Identifier: Apache-2.0
// Cgroups of a test in the machine's cgroup2 tree, and processes in them.
import { type ChildProcess, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { mkdirSync, rmdirSync } from "node:fs";
import { createInterface } from "node:readline";
import { HostMounts } from "../../../src/sys/mounts.ts";
import { ScratchDir } from "../../support/scratch-dir.ts";

/** The machine's hierarchy, as the product finds it. */
export function machineHierarchy(): string {
  const { path, reason } = new HostMounts("/proc").cgroup2();
  if (path === undefined) throw new Error(reason);
  return path;
}

export class CgroupWorld implements AsyncDisposable {
  readonly scratch = new ScratchDir();
  readonly name = `ambient-test-${randomUUID().slice(0, 8)}`;
  readonly root = `${machineHierarchy()}/${this.name}`;
  readonly #made: string[] = [];
  readonly #children: ChildProcess[] = [];

  constructor() {
    this.make("");
  }

  /** Makes a cgroup and those around it; returns its path. */
  make(path: string): string {
    let full = this.root;
    for (const part of ["", ...path.split("/").filter((one) => one !== "")]) {
      if (part !== "") full = `${full}/${part}`;
      if (this.#made.includes(full)) continue;
      mkdirSync(full);
      this.#made.push(full);
    }
    return full;
  }

  /** Starts a program in a cgroup; its output by lines. */
  start(
    cgroup: string,
    argv: readonly string[],
  ): { readonly child: ChildProcess; readonly lines: AsyncIterator<string> } {
    const script = 'echo $$ > "$0/cgroup.procs" && exec "$@"';
    const child = spawn("bash", ["--norc", "-c", script, cgroup, ...argv], { stdio: ["pipe", "pipe", "inherit"] });
    this.#children.push(child);
    return { child, lines: createInterface({ input: child.stdout })[Symbol.asyncIterator]() };
  }

  /** A process that waits in a cgroup, by its pid. */
  async process(cgroup: string): Promise<number> {
    const { child, lines } = this.start(cgroup, ["bash", "--norc", "-c", "echo up; read -r _"]);
    await lines.next();
    return child.pid ?? 0;
  }

  async end(pid: number): Promise<void> {
    const child = this.#children.find((one) => one.pid === pid);
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, "exit");
    child.kill("SIGKILL");
    await exited;
  }

  async remove(path: string): Promise<void> {
    this.#made.splice(this.#made.indexOf(path), 1);
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

  async [Symbol.asyncDispose](): Promise<void> {
    for (const child of this.#children) await this.end(child.pid ?? 0);
    for (const path of [...this.#made].reverse()) await this.remove(path);
    this.scratch[Symbol.dispose]();
  }
}
