// SPDX-License-Identifier: Apache-2.0
import { spawn } from "node:child_process";
import { describe, expect, test } from "vitest";
import { leftovers, PROGRAM } from "../support/sandbox.ts";

interface Outcome {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly pid: number;
}

function demo(args: readonly string[], interruptAfterMs?: number): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [PROGRAM, "sandbox", "demo", ...args], { stdio: ["ignore", "pipe", "pipe"] });
    let stdout = "";
    let stderr = "";
    child.stdout.on("data", (chunk: Buffer) => {
      stdout += chunk.toString();
    });
    child.stderr.on("data", (chunk: Buffer) => {
      stderr += chunk.toString();
    });
    if (interruptAfterMs !== undefined) setTimeout(() => child.kill("SIGINT"), interruptAfterMs);
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, stdout, stderr, pid: child.pid ?? 0 }));
  });
}

interface DemoDocument {
  readonly failed: number;
  readonly runs: readonly {
    readonly chart: string;
    readonly error?: string;
    readonly checks: readonly { readonly id: string; readonly passed: boolean; readonly evidence: string }[];
  }[];
}

describe("npm run demo", () => {
  test.each(["newest", "1.24"])("every check passes under chart %s, and nothing is left", async (chart) => {
    const { code, stdout, stderr, pid } = await demo(["--json", "--chart", chart]);
    expect(stderr).toBe("");
    const document = JSON.parse(stdout) as DemoDocument;
    const [run] = document.runs;
    expect(run?.error).toBeUndefined();
    expect(run?.checks.filter(({ passed }) => !passed)).toEqual([]);
    expect(run?.checks.length).toBeGreaterThan(25);
    expect(document.failed).toBe(0);
    expect(code).toBe(0);
    expect(leftovers(pid)).toEqual([]);
  });

  test.each([150, 700, 1500, 2500, 4000])("SIGINT after %d ms cleans up", async (ms) => {
    const { code, pid } = await demo(["--chart", "newest"], ms);
    // Null: the signal came before the program could listen for it, and before it had made anything.
    // 0: the machine was faster than the signal.
    expect([130, null, 0]).toContain(code);
    expect(leftovers(pid)).toEqual([]);
  });
});
