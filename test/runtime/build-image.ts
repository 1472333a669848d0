// SPDX-License-Identifier: Apache-2.0
import { spawn } from "node:child_process";
import { once } from "node:events";
import { renameSync, rmSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";

const repository = resolve(import.meta.dirname, "../..");

/** Written once the image of these sources is built, empty, or could not be, with the reason. */
export const OUTCOME = `${repository}/build/image.outcome`;

/**
 * Begins with the image, at low priority, while other tiers wait for the kernel: it takes a core for a minute where
 * nothing of it is there yet. This tier's files wait for it (await-image.ts). Returns what ends it.
 */
export function setup(): () => Promise<void> {
  rmSync(OUTCOME, { force: true });
  const child = spawn("nice", ["-n", "10", `${repository}/scripts/build-image`], {
    stdio: ["ignore", "ignore", "pipe"],
    detached: true,
  });
  let said = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    said += text;
  });
  const ended = once(child, "close").then(([code, signal]) => {
    const reason = code === 0 ? "" : `scripts/build-image ended with ${signal ?? code}:\n${said}`;
    writeFileSync(`${OUTCOME}.new`, reason);
    renameSync(`${OUTCOME}.new`, OUTCOME);
  });
  return async () => {
    if (child.exitCode === null && child.signalCode === null && child.pid !== undefined) process.kill(-child.pid);
    await ended;
  };
}
