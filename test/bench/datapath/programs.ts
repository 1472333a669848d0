// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { createInterface } from "node:readline";
import type { HeldNetns } from "../../../src/native/netns.ts";
import { Child } from "../../../src/sys/child.ts";
import { run } from "../../../src/sys/exec.ts";
import { ScratchDir } from "../../support/scratch-dir.ts";

const NAMES = ["proxy", "echo", "load"] as const;
type Name = (typeof NAMES)[number];
/** USER_HZ is 100 on every Linux that Node runs on. */
const TICKS_PER_SECOND = 100;

export type Placement = "one" | "split";

/**
 * CPUs of the programs, the same for all variants. On one CPU nobody waits for another CPU to wake up, so
 * the rate is the inverse of all the work of a connection; that repeats far better where CPUs are virtual.
 * Split, the proxy has the last CPU and the two ends share the first.
 */
export function placeOn(placement: Placement): Readonly<Record<Name, number>> {
  const last = availableParallelism() - 1;
  const ends = placement === "one" ? last : 0;
  return { proxy: last, echo: ends, load: ends };
}

/** What `load` prints in every mode; the rest depends on the mode. */
export interface LoadCounts {
  readonly opened: number;
  readonly failed: number;
  readonly hung: number;
  readonly cpu: number;
  readonly perSecond?: number;
  readonly p50?: number;
  readonly p99?: number;
  readonly bytes?: number;
  readonly gigabits?: number;
}

/** The benchmark's C programs, compiled into a scratch directory. */
export class Programs implements Disposable {
  readonly #dir = new ScratchDir();

  private constructor(private readonly cpus: Readonly<Record<Name, number>>) {}

  static async compile(placement: Placement): Promise<Programs> {
    const programs = new Programs(placeOn(placement));
    const sources = new URL("..", import.meta.url).pathname;
    for (const name of NAMES) {
      const argv = ["cc", "-O2", "-Wall", "-Werror", "-D_GNU_SOURCE", "-o", programs.#dir.file(name)];
      await run([...argv, `${sources}${name}.c`], { timeoutMs: 60_000 });
    }
    return programs;
  }

  /** A program that serves until it is closed. */
  start(name: "proxy" | "echo", netns: HeldNetns, args: readonly string[]): Service {
    return new Service(netns, this.#argv(name, args));
  }

  /** Runs the client to its end. @throws ExecError */
  async load(netns: HeldNetns, seconds: number, args: readonly string[]): Promise<LoadCounts> {
    const argv = this.#argv("load", ["--seconds", String(seconds), ...args]);
    const { stdout } = await run(argv, { netns: netns.fd, timeoutMs: Math.ceil((seconds + 20) * 1000) });
    return JSON.parse(stdout);
  }

  /** Time that the CPUs of the programs did not idle, since boot, in seconds; softirqs are in it. */
  busySeconds(): number {
    return busySecondsOf(new Set(Object.values(this.cpus).map((cpu) => `cpu${cpu}`)));
  }

  [Symbol.dispose](): void {
    this.#dir[Symbol.dispose]();
  }

  #argv(name: Name, args: readonly string[]): string[] {
    return [this.#dir.file(name), "--cpu", String(this.cpus[name]), ...args];
  }
}

/** Time that these lines of /proc/stat ("cpu" for all CPUs, "cpu0", ...) did not idle, since boot, in seconds. */
export function busySecondsOf(names: ReadonlySet<string>): number {
  let ticks = 0;
  for (const line of readFileSync("/proc/stat", "utf8").split("\n")) {
    const [name = "", ...fields] = line.split(/\s+/);
    // What a hypervisor stole was nobody's work here.
    const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0] = fields.map(Number);
    if (names.has(name)) ticks += user + nice + system + irq + softirq;
  }
  return ticks / TICKS_PER_SECOND;
}

/** One of our programs in a netns, asked by lines. It ends with its stdin, thus with us. */
export class Service implements AsyncDisposable {
  readonly #child: Child;
  readonly #lines: AsyncIterator<string>;

  constructor(netns: HeldNetns, argv: readonly string[]) {
    this.#child = new Child(["nsenter", "--net=/proc/self/fd/3", "--", ...argv], {
      stdio: ["pipe", "pipe", "inherit", netns.fd],
    });
    const { stdout, stdin } = this.#child.process;
    if (stdout === null || stdin === null) throw new Error("no pipes");
    stdin.on("error", () => undefined);
    this.#lines = createInterface({ input: stdout })[Symbol.asyncIterator]();
  }

  /** nsenter becomes the program, so its pid is the program's. */
  get pid(): number {
    return this.#child.pid;
  }

  tell(): void {
    this.#child.process.stdin?.write("\n");
  }

  /** @throws Error when the program has ended. */
  async line(): Promise<string> {
    const { value, done } = await this.#lines.next();
    if (done === true) throw new Error("a program of the benchmark has ended, see above");
    return value;
  }

  async ready(): Promise<this> {
    const line = await this.line();
    if (line !== "ready") throw new Error(`unexpected line: ${line}`);
    return this;
  }

  async counts<T>(): Promise<T> {
    this.tell();
    return JSON.parse(await this.line());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.process.stdin?.end();
    await this.#child.exited;
  }
}
