// SPDX-License-Identifier: Apache-2.0
import { spawn } from "node:child_process";
import { constants } from "node:os";

/** A terminal tells everybody in the foreground; the program decides what an interrupt means. */
const ITS_OWN = ["SIGINT", "SIGQUIT", "SIGTSTP"] as const;
const PASSED_ON = ["SIGTERM", "SIGHUP"] as const;

/**
 * Runs a program with this process's own input, output and terminal, in its network namespace and root. Resolves
 * with its exit status, 128 and the signal's number for one that was killed, as a shell has it.
 * @throws Error ENOENT | EACCES when it can't be started
 */
export function runInForeground(
  argv: readonly [string, ...string[]],
  environment: Readonly<Record<string, string | undefined>>,
): Promise<number> {
  const [file, ...args] = argv;
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, { stdio: "inherit", env: { ...environment }, cwd: "/" });
    const nothing = () => undefined;
    const pass = (signal: NodeJS.Signals) => void child.kill(signal);
    for (const signal of ITS_OWN) process.on(signal, nothing);
    for (const signal of PASSED_ON) process.on(signal, pass);
    const over = () => {
      for (const signal of ITS_OWN) process.off(signal, nothing);
      for (const signal of PASSED_ON) process.off(signal, pass);
    };
    child.once("error", (error) => {
      over();
      reject(error);
    });
    child.once("exit", (code, signal) => {
      over();
      resolve(code ?? 128 + (signal === null ? 0 : constants.signals[signal]));
    });
  });
}
