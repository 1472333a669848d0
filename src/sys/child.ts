// SPDX-License-Identifier: Apache-2.0
import { type ChildProcess, type StdioOptions, spawn } from "node:child_process";
import { readFileSync } from "node:fs";

export interface ChildOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly stdio?: StdioOptions;
  readonly cwd?: string;
}

export interface ChildExit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** A long-running program that somebody owns: started without a shell, ended with `end`. */
export class Child {
  readonly process: ChildProcess;
  readonly exited: Promise<ChildExit>;
  private leaf: number | undefined;

  /** @throws Error at once when the program cannot be started. */
  constructor(argv: readonly string[], options: ChildOptions = {}) {
    const [file, ...rest] = argv;
    if (file === undefined) throw new Error("no program to start");
    this.process = spawn(file, rest, {
      stdio: options.stdio ?? ["ignore", "pipe", "pipe"],
      ...(options.env === undefined ? {} : { env: options.env }),
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    });
    this.exited = new Promise((resolve, reject) => {
      this.process.once("error", reject);
      this.process.once("exit", (code, signal) => resolve({ code, signal }));
    });
    // Whoever awaits `exited` sees the error; nobody awaiting must not end the process.
    this.exited.catch(() => undefined);
  }

  get running(): boolean {
    return this.process.pid !== undefined && this.process.exitCode === null && this.process.signalCode === null;
  }

  /** Pid in our pid namespace. */
  get pid(): number {
    if (this.process.pid === undefined) throw new Error("the program did not start");
    return this.process.pid;
  }

  /** Remembers the program at the end of the chain, before it has children of its own. */
  pinLeaf(): number {
    this.leaf = this.leafPid();
    return this.leaf;
  }

  /**
   * Pid of the program at the end of a chain of wrappers (nsenter, unshare), each with one child:
   * signals meant for the program must not end its wrapper first. A program that starts others itself
   * must have been pinned.
   */
  leafPid(): number {
    if (this.leaf !== undefined) return this.leaf;
    let pid = this.pid;
    for (let depth = 0; depth < 16; depth++) {
      const next = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ")[0];
      if (next === undefined || next === "") return pid;
      pid = Number(next);
    }
    return pid;
  }

  /** SIGTERM to the program, SIGKILL after `graceMs`; resolves when it is gone. */
  async end(graceMs = 3000): Promise<void> {
    if (!this.running) return;
    const timer = setTimeout(() => this.signal("SIGKILL"), graceMs);
    this.signal("SIGTERM");
    await this.exited.catch(() => undefined);
    clearTimeout(timer);
  }

  /** SIGKILL to the program alone: its wrappers end once all of its threads have, and with them its open files. */
  killProgram(): void {
    try {
      if (this.running) process.kill(this.leafPid(), "SIGKILL");
    } catch {
      // It has ended by itself.
    }
  }

  signal(name: NodeJS.Signals): void {
    if (!this.running) return;
    try {
      process.kill(this.leafPid(), name);
    } catch {
      this.process.kill(name);
    }
    // nsenter(1) stops itself when its child is stopped.
    if (name === "SIGKILL" || name === "SIGCONT") this.process.kill(name);
  }
}
