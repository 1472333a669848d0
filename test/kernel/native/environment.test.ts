// SPDX-License-Identifier: Apache-2.0
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { addonPaths, native } from "../../../src/native/load.ts";

/** Of what a busy machine takes its time for. */
const PATIENT = { timeout: 10_000 };

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "environment-"));
});
afterEach(() => {
  rmSync(dir, { recursive: true });
});

const addon = () => {
  const found = addonPaths(join(process.cwd(), "src", "native"), process.env.AMBIENT_CNI_ADDON).find(existsSync);
  if (found === undefined) throw new Error("the addon is not built");
  return found;
};

test("workers and the main thread may end with everything open: nothing is left, nothing aborts", () => {
  const out = execFileSync(process.execPath, ["--import", "tsx", "test/support/native-environment.ts", addon(), dir], {
    encoding: "utf8",
  });
  expect(JSON.parse(out)).toEqual({ left: 0 });
});

test("a server out of fds turns peers away without spinning, and serves again when it has some", async () => {
  const path = join(dir, "full.sock");
  const child = spawn(
    "sh",
    ["-c", 'ulimit -n 60 && exec "$0" "$@"', process.execPath, "test/support/full-server.cjs", addon(), path],
    {
      stdio: ["pipe", "pipe", "inherit"],
    },
  );
  try {
    const say = async (word: string) => {
      child.stdin.write(`${word}\n`);
      const [answer] = await once(child.stdout, "data");
      return JSON.parse(String(answer));
    };
    await say("fill");
    const ends: unknown[] = [];
    for (let i = 0; i < 5; i++) native().seqpacketConnect(path, { packet: () => {}, end: () => ends.push(i) });
    await vi.waitFor(() => expect(ends).toHaveLength(5), PATIENT);
    const { cpu } = await say("cpu");
    await new Promise((resolve) => setTimeout(resolve, 300));
    const after = await say("cpu");
    // Spinning would take all of the 300 ms.
    expect(after.cpu - cpu).toBeLessThan(100);
    expect(after.accepted).toBe(0);
    await say("free");
    const connection = native().seqpacketConnect(path, { packet: () => {}, end: () => {} });
    await vi.waitFor(async () => expect((await say("cpu")).accepted).toBe(1), PATIENT);
    connection.close();
  } finally {
    child.kill();
    await once(child, "exit");
  }
});
