// SPDX-License-Identifier: Apache-2.0
// The documentation's first page, done as it says; and in the same playground every other command of the
// documentation that only looks.
import { execFile, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { commandsIn } from "../../scripts/docs/commands.ts";
import { makeSite } from "../../scripts/docs/site.ts";
import { isHarmless } from "../../src/sandbox/scenario/references.ts";
import { leftovers, PROGRAM } from "../support/sandbox.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const PLAYGROUND = "scenarios/playground.yaml";

interface Done {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A line of a page, typed into a shell of the machine. */
function type(line: string, path: string): Promise<Done> {
  const env = { ...process.env, PATH: `${path}:${process.env.PATH}` };
  return new Promise((resolve) => {
    const child = execFile("bash", ["--norc", "-c", line], { env, timeout: 30_000 }, (_error, stdout, stderr) => {
      resolve({ status: child.exitCode ?? 124, stdout, stderr });
    });
  });
}

/** Options with a value after them. */
const VALUED = ["-n", "-o", "--category", "--engine", "--timeout"];

/** Commands of pages that need no pod of their own, or another pod than the playground's. */
function elsewhere(): string[] {
  const documents = makeSite(ROOT).pages.map(({ source }) => readFileSync(`${ROOT}docs/${source}`, "utf8"));
  const lines = documents
    .flatMap((document) => commandsIn(document))
    .flatMap(({ argv }) => {
      const [command = "", ...words] = argv;
      if (words.length === 0 && command !== "status" && command !== "pods") return [];
      if (
        !isHarmless(argv) ||
        ["log", "monitor", "reset-existing", "trace"].includes(command) ||
        words.includes("--wait")
      )
        return [];
      // Whichever pod a page speaks of, here it is this one.
      const own = ["inspect", "plan", "pods", "verify"].includes(command);
      const isOption = (word: string, index: number) => word.startsWith("-") || VALUED.includes(words[index - 1] ?? "");
      return [[command, ...words.map((word, index) => (own && !isOption(word, index) ? "shop/web" : word))].join(" ")];
    });
  return [...new Set(lines)];
}

test("the first page works as it is written, and so does what other pages look at", async () => {
  const page = readFileSync(`${ROOT}docs/START.md`, "utf8");
  const { scripts } = JSON.parse(readFileSync(`${ROOT}package.json`, "utf8")) as { scripts: Record<string, string> };
  expect(page).toContain("npm run playground");
  expect(scripts.playground).toBe("scripts/demo --playground");
  expect(readFileSync(`${ROOT}scripts/demo`, "utf8")).toContain(`sandbox run ${PLAYGROUND} --keep "$@"`);

  const began = performance.now();
  const shell = spawn(process.execPath, [PROGRAM, "sandbox", "run", PLAYGROUND, "--keep"], { cwd: ROOT });
  let printed = "";
  let failed = "";
  shell.stderr.on("data", (chunk: Buffer) => {
    failed += chunk.toString();
  });
  try {
    await new Promise<void>((resolve, reject) => {
      shell.stdout.on("data", (chunk: Buffer) => {
        printed += chunk.toString();
        if (printed.includes("# a shell on node1")) resolve();
      });
      shell.once("close", () => reject(new Error(`the playground ended: ${printed}${failed}`)));
    });
    const path = /export PATH=(\S+):\$PATH; ambient-cni status\n/.exec(printed)?.[1] ?? "";
    for (const line of page.matchAll(/^ {2}√ (.*)$/gm)) expect(printed).toContain(line[0]);

    const lines = [...page.matchAll(/^(ambient-cni .*)$/gm)].map(([, line = ""]) => line);
    const [status = "", pods = "", monitor = "", request = "", ...more] = lines;
    expect(await type(status, path)).toMatchObject({ status: 0, stderr: "" });
    expect((await type(pods, path)).stdout).toMatch(/\nshop +web +10\.66\.0\.2 .* enrolled /);

    // The verdict as the page shows it, but for the time of day.
    const flow = /^\d\d:\d\d:\d\d\.\d{3} (out .*)$/m.exec(page)?.[1] ?? "none";
    const verdicts = spawn("bash", ["--norc", "-c", `exec ${monitor}`], {
      env: { ...process.env, PATH: `${path}:${process.env.PATH}` },
    });
    let seen = "";
    verdicts.stdout.on("data", (chunk: Buffer) => {
      seen += chunk.toString();
    });
    try {
      // A person's monitor shows the request that is made once it runs; it does not say when that is.
      await expect
        .poll(
          async () => {
            const { stdout } = await type(request, path);
            expect(JSON.parse(stdout)).toMatchObject({
              server: "cart",
              clientSeen: expect.stringMatching(/^10\.66\.0\.2:/),
            });
            return seen;
          },
          { timeout: 10_000, interval: 200 },
        )
        .toContain(flow);
    } finally {
      verdicts.kill("SIGINT");
    }
    // The machine's part of the five minutes, but for what is installed and built before.
    expect(performance.now() - began).toBeLessThan(60_000);

    for (const line of more) expect(await type(line, path), line).toMatchObject({ status: 0, stderr: "" });
    const others = elsewhere();
    expect(others.length).toBeGreaterThan(15);
    for (const line of others) {
      const { status: code, stderr } = await type(`ambient-cni ${line}`, path);
      expect([0, 1], `${line}: ${stderr}`).toContain(code);
      expect(stderr, line).toBe("");
    }
  } finally {
    shell.kill("SIGINT");
    await new Promise((resolve) => shell.once("close", resolve));
  }
  expect(shell.exitCode).toBe(130);
  expect(leftovers(shell.pid ?? 0)).toEqual([]);
});
