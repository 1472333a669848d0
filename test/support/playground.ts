// SPDX-License-Identifier: Apache-2.0
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { leftovers, PROGRAM } from "./sandbox.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
/** For a program that this machine runs beside others. */
const PATIENCE_MS = 60_000;

export interface Said {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Exit status, and what was left on the machine. */
export interface Ended {
  readonly status: number | null;
  readonly left: readonly string[];
}

/** A sandbox that a person keeps up in one shell, and the other shells in which they type. */
export class Playground {
  private constructor(
    private readonly shell: ChildProcess,
    /** What the first shell printed until the sandbox stayed. */
    readonly printed: string,
    /** Where the other shells are: files that a command names are there. */
    private readonly directory: string,
  ) {}

  /** Plays a scenario and leaves its sandbox up. @throws Error with what was printed, when it does not stay */
  static async keep(scenario: string, directory: string): Promise<Playground> {
    const shell = spawn(process.execPath, [PROGRAM, "sandbox", "run", scenario, "--keep"], { cwd: ROOT });
    let printed = "";
    let failed = "";
    shell.stderr.on("data", (chunk: Buffer) => {
      failed += chunk.toString();
    });
    await new Promise<void>((resolve, reject) => {
      shell.stdout.on("data", (chunk: Buffer) => {
        printed += chunk.toString();
        if (printed.includes("# a shell on node1")) resolve();
      });
      shell.once("close", () => reject(new Error(`the playground ended: ${printed}${failed}`)));
    });
    return new Playground(shell, printed, directory);
  }

  /** What the first shell says to type in another one. @throws Error when it says no such thing */
  private told(pattern: RegExp): string {
    const [, found] = pattern.exec(this.printed) ?? [];
    if (found === undefined) throw new Error(`the playground does not say ${pattern}: ${this.printed}`);
    return found;
  }

  /** Types a line into a shell that has the playground's PATH, and waits for its end. Status 124: it had to be stopped. */
  type(line: string): Promise<Said> {
    const { env, cwd } = this.place();
    return new Promise((resolve) => {
      const limits = { timeout: PATIENCE_MS, maxBuffer: 1 << 24 };
      const child = execFile("bash", ["--norc", "-c", line], { env, cwd, ...limits }, (_error, stdout, stderr) => {
        resolve({ status: child.exitCode ?? 124, stdout, stderr });
      });
    });
  }

  /** Types a line into a shell on the node itself, beside the node's own processes. */
  typeOnNode(line: string): Promise<Said> {
    // As the program does that the playground has for `ambient-cni`, with another program.
    const entrance = readFileSync(`${this.programs()}/ambient-cni`, "utf8").trimEnd().split("\n").at(-1) ?? "";
    const own = `'${process.execPath}' '${PROGRAM}' "$@"`;
    if (!entrance.endsWith(own)) throw new Error(`not the playground's program: ${entrance}`);
    return this.type(`${entrance.slice(0, -own.length)} bash --norc -c '${line.replaceAll("'", "'\\''")}'`);
  }

  /** Types a line that goes on until Ctrl-C, which is pressed by `Going.interrupt`. */
  begin(line: string): Going {
    return new Going(spawn("bash", ["--norc", "-c", line], { ...this.place(), detached: true }));
  }

  private place() {
    return { env: { ...process.env, PATH: `${this.programs()}:${process.env.PATH}` }, cwd: this.directory };
  }

  private programs(): string {
    return this.told(/^ {2}export PATH=(\S+):\$PATH; ambient-cni status$/m);
  }

  /** Ctrl-C in the first shell: its exit status, and what it has left. */
  async end(): Promise<Ended> {
    if (this.shell.exitCode === null && this.shell.signalCode === null) {
      this.shell.kill("SIGINT");
      await new Promise((resolve) => this.shell.once("close", resolve));
    }
    return { status: this.shell.exitCode, left: leftovers(this.shell.pid ?? 0) };
  }
}

/** A command that goes on, in a process group of its own as a shell's foreground job is. */
export class Going {
  stdout = "";
  stderr = "";
  /** All of it, and what it had begun. */
  ended = false;
  private readonly closed: Promise<void>;

  constructor(private readonly child: ChildProcess) {
    child.stdout?.on("data", (chunk: Buffer) => {
      this.stdout += chunk.toString();
    });
    child.stderr?.on("data", (chunk: Buffer) => {
      this.stderr += chunk.toString();
    });
    this.closed = new Promise((resolve) =>
      child.once("close", () => {
        this.ended = true;
        resolve();
      }),
    );
  }

  /** Ctrl-C, and what had been said when all of it had ended. */
  async interrupt(): Promise<Going> {
    const { pid } = this.child;
    try {
      if (pid !== undefined && !this.ended) process.kill(-pid, "SIGINT");
    } catch {
      // It ends by itself.
    }
    await this.closed;
    return this;
  }
}
