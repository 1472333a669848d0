// SPDX-License-Identifier: Apache-2.0
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { leftovers, PROGRAM } from "../support/sandbox.ts";

interface Outcome {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly pid: number;
}

/** Runs it to its end, or to a Ctrl-C: after so many ms, or once it has printed this. */
function demo(args: readonly string[], interruptAfter?: number | string): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [PROGRAM, "sandbox", "demo", ...args], { stdio: ["ignore", "pipe", "pipe"] });
    let stdout = "";
    let stderr = "";
    child.stdout.on("data", (chunk: Buffer) => {
      const before = stdout;
      stdout += chunk.toString();
      if (typeof interruptAfter !== "string" || before.includes(interruptAfter)) return;
      if (stdout.includes(interruptAfter)) child.kill("SIGINT");
    });
    child.stderr.on("data", (chunk: Buffer) => {
      stderr += chunk.toString();
    });
    if (typeof interruptAfter === "number") setTimeout(() => child.kill("SIGINT"), interruptAfter);
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, stdout, stderr, pid: child.pid ?? 0 }));
  });
}

interface DemoDocument {
  readonly failed: number;
  readonly runs: readonly {
    readonly chart: string;
    readonly error?: string;
    readonly checks: readonly { readonly title: string; readonly passed: boolean; readonly evidence: string }[];
  }[];
}

/** What a page shows of what the demo prints: lines of the block with this one. */
function shown(path: string): string[] {
  const page = readFileSync(fileURLToPath(new URL(`../../${path}`, import.meta.url)), "utf8");
  const block = page.split("```").find((text) => text.includes("√ both pods are captured and annotated"));
  return (block ?? "").trim().split("\n");
}

const checksIn = (lines: readonly string[]): string[] =>
  lines.filter((line) => line.startsWith("  √ ")).map((line) => line.slice(4));

describe("npm run demo", () => {
  test("every check passes under both charts, and nothing is left", async () => {
    const { code, stdout, stderr, pid } = await demo(["--json"]);
    expect(stderr).toBe("");
    const document = JSON.parse(stdout) as DemoDocument;
    expect(document.runs.map(({ chart }) => chart)).toEqual(["newest", "1.24"]);
    for (const { checks, error } of document.runs) {
      expect(error).toBeUndefined();
      expect(checks.filter(({ passed }) => !passed)).toEqual([]);
      expect(checks.length).toBeGreaterThan(25);
    }
    expect(document.failed).toBe(0);
    const titles = document.runs[0]?.checks.map(({ title }) => title) ?? [];
    const whole = shown("docs/ARCHITECTURE.md");
    expect(checksIn(whole)).toEqual(titles);
    expect(whole.at(-1)).toBe(`${titles.length} checks passed, 0 failed`);
    const some = checksIn(shown("README.md"));
    expect(titles.filter((title) => some.includes(title))).toEqual(some);
    expect(code).toBe(0);
    expect(leftovers(pid)).toEqual([]);
  });

  test("kept, with another engine, it stays until Ctrl-C", async () => {
    const { code, stdout, stderr, pid } = await demo(["--keep", "--engine", "nftables"], "# a shell on node1\n");
    for (const line of shown("README.md")) expect(stdout).toContain(`\n${line}`);
    expect(stdout).not.toMatch(/^ {2}× /m);
    expect(stdout).toMatch(/The sandbox stays until Ctrl-C\. In another shell:\n {2}export KUBECONFIG=/);
    expect(stderr).toBe("\nSIGINT: cleaning up\n");
    expect(code).toBe(130);
    expect(leftovers(pid)).toEqual([]);
  });

  test.each([150, 700, 1500, 2500])("SIGINT after %d ms cleans up", async (ms) => {
    const { code, pid } = await demo(["--chart", "newest"], ms);
    // Null: the signal came before the program could listen for it, and before it had made anything.
    // 0: the machine was faster than the signal.
    expect([130, null, 0]).toContain(code);
    expect(leftovers(pid)).toEqual([]);
  });
});
