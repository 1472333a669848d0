// SPDX-License-Identifier: Apache-2.0
// C programs of the tests, compiled when a test file needs them, and run in a netns and a cgroup.
import { join } from "node:path";
import type { HeldNetns } from "../../src/native/netns.ts";
import type { Cgroup } from "../../src/sys/cgroup.ts";
import { run } from "../../src/sys/exec.ts";
import { ScratchDir } from "./scratch-dir.ts";

/** `echo 0` moves the shell itself; exec keeps it there. */
const JOIN = 'echo 0 >"$0/cgroup.procs" && exec "$@"';

export class LabPrograms implements Disposable {
  readonly #dir = new ScratchDir();

  /** Compiles test/support/NAME.c. `flags` go behind the source: libraries. */
  static async compile(names: readonly string[], flags: readonly string[] = []): Promise<LabPrograms> {
    const programs = new LabPrograms();
    for (const name of names) {
      const source = join(import.meta.dirname, `${name}.c`);
      const argv = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-o", programs.file(name), source];
      await run([...argv, ...flags], { timeoutMs: 60_000 });
    }
    return programs;
  }

  file(name: string): string {
    return this.#dir.file(name);
  }

  /** Its lines, once it has ended. @throws ExecError. */
  async run(
    netns: HeldNetns,
    cgroup: Cgroup,
    argv: readonly [name: string, ...args: string[]],
    input: readonly string[] = [],
  ): Promise<string[]> {
    const [name, ...args] = argv;
    const { stdout } = await run(["sh", "-c", JOIN, cgroup.path, this.file(name), ...args], {
      netns: netns.fd,
      timeoutMs: 50_000,
      stdin: input.map((line) => `${line}\n`).join(""),
    });
    return stdout.split("\n").slice(0, -1);
  }

  [Symbol.dispose](): void {
    this.#dir[Symbol.dispose]();
  }
}
