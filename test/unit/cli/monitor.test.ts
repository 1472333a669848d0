// SPDX-License-Identifier: Apache-2.0
// A stream of flows as people see it, live and recorded: byte for byte.
import { writeFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { type FlowLine, parseFlowLine } from "../../../src/core/flow/line.ts";
import { DebugServer } from "../../../src/telemetry/debug-server.ts";
import { silent } from "../../fakes/parts.ts";
import { COUNTS, FLOWS, HEAD } from "../../fixtures/flows.ts";
import { cli } from "../../support/cli-env.ts";
import { ScratchDir } from "../../support/scratch-dir.ts";

const LOSSES: readonly FlowLine[] = [
  { type: "lost", at: "2026-01-01T11:59:05.000Z", events: 40, by: "kernel" },
  { type: "lost", at: "2026-01-01T11:59:06.000Z", events: 1, by: "reader" },
  { type: "blind", at: "2026-01-01T11:59:07.000Z", milliseconds: 310 },
];
const LINES = [HEAD, ...FLOWS, COUNTS, ...LOSSES];
/** With its fields in the order in which they are always written. */
const RECORDED = LINES.map((line) => `${JSON.stringify(parseFlowLine(JSON.stringify(line)))}\n`).join("");

/** The command on a recording. */
async function replay(args: readonly string[], recorded = RECORDED): Promise<string> {
  const { status, stdout, stderr } = await cli(["monitor", "--from", "-", ...args], { stdin: recorded });
  return `$ ambient-cni monitor --from - ${args.join(" ")}\n${stdout}${stderr}[${status}]\n`;
}

test("a recording, in each form and by each filter", async () => {
  const commands = [
    [],
    ["-o", "wide"],
    ["-o", "yaml", "--limit", "1"],
    ["--pod", "web", "--direction", "in"],
    ["--verdict", "dropped,hbone"],
    ["--src", "10.1.2.14", "--port", "8080"],
    ["--dst", "fd00::/64", "-n", "billing"],
    ["--last", "2"],
    ["--limit", "2"],
    ["--verdict", "maybe"],
    ["--src", "10.1.2.300"],
    ["--port", "70000"],
    ["--last", "0"],
    ["--direction", "sideways"],
  ];
  const transcripts: string[] = [];
  for (const args of commands) transcripts.push(await replay(args));
  await expect(transcripts.join("\n")).toMatchFileSnapshot("golden/monitor.txt");
});

test("a stream as JSON is its own recording", async () => {
  const { stdout } = await cli(["monitor", "--from", "-", "-o", "json"], { stdin: RECORDED });
  expect(stdout).toBe(RECORDED);
  using scratch = new ScratchDir();
  writeFileSync(scratch.file("flows"), stdout);
  const again = await cli(["monitor", "--from", scratch.file("flows"), "-o", "json"]);
  expect(again).toMatchObject({ status: 0, stdout: RECORDED });
});

test("what is no line is told and left out, and is a problem", async () => {
  const recorded = `garbage\n${JSON.stringify(FLOWS[0])}\n${'{"type":"flow"}\n'.repeat(7)}\u001b[2J`;
  const { status, stdout, stderr } = await cli(["monitor", "--from", "-"], { stdin: recorded });
  expect(status).toBe(1);
  expect(stdout.split("\n")).toHaveLength(2);
  expect(stderr).toMatch(
    /^ambient-cni: line 1: no line of a flow stream: it is no JSON\n(ambient-cni: line [3-6]: .*\n){4}ambient-cni: 4 more lines that are none\n1 of 1 flows shown, 0 lost\n$/,
  );
});

test("a file that is no recording, and one that is not there", async () => {
  const endless = await cli(["monitor", "--from", "-"], { stdin: "x".repeat(100_000) });
  expect(endless).toMatchObject({
    status: 1,
    stdout: "",
    stderr: "ambient-cni: a line of more than 16384 characters\n",
  });
  expect(await cli(["monitor", "--from", "/nonexistent"])).toMatchObject({
    status: 1,
    stderr: expect.stringContaining("ENOENT"),
  });
});

test("names that would move a terminal's cursor are made visible", async () => {
  const { stdout } = await cli(["monitor", "--from", "-"], {
    stdin: JSON.stringify({ ...FLOWS[0], pod: "a/\u001b[2J", peer: "\u202e", reason: "\u0007" }),
  });
  expect(stdout).toMatch(/^[ -~]*\n$/);
});

describe("live", () => {
  /** An agent that streams these texts, then lets the test go on. */
  async function against(
    texts: readonly string[],
    args: readonly string[],
    then: (end: () => void, controller: AbortController) => void = () => undefined,
  ) {
    using scratch = new ScratchDir();
    const path = scratch.file("s");
    const asked: string[] = [];
    let stopped = 0;
    const controller = new AbortController();
    const server = new DebugServer({
      path,
      logger: silent,
      routes: {
        monitor: {
          stream: (query, sink) => {
            asked.push(query.toString());
            for (const text of texts) sink(text);
            setImmediate(() => then(() => void server.stop(), controller));
            return () => {
              stopped += 1;
            };
          },
        },
      },
    });
    await server.listen();
    const run = await cli(["monitor", "--socket", path, ...args], { interruption: controller.signal });
    await expect.poll(() => stopped).toBe(asked.length);
    await server.stop();
    return { ...run, asked };
  }

  test("until so many are shown; then the agent is left", async () => {
    const run = await against([RECORDED], ["--limit", "2", "--last", "7"]);
    expect(run).toMatchObject({ status: 0, asked: ["last=7"] });
    expect(run.stderr).toMatch(/^1 pod captured by nftables: .*\n2 of 2 flows shown, 0 lost\n$/);
    expect(run.stdout.split("\n")).toHaveLength(3);
  });

  test("until the user interrupts, with a last line", async () => {
    const run = await against([RECORDED], ["-o", "json"], (_, controller) => setTimeout(() => controller.abort(), 50));
    expect(run).toMatchObject({ status: 0, stdout: RECORDED, stderr: "5 of 5 flows shown, 41 lost\n" });
  });

  test("until the agent is gone, which is a problem", async () => {
    const run = await against([RECORDED], [], (end) => setTimeout(end, 50));
    expect(run.status).toBe(3);
    expect(run.stdout.split("\n")).toHaveLength(10);
  });

  test("what another program on the socket says is no flow", async () => {
    const run = await against(["hello\n"], []);
    expect(run).toMatchObject({ status: 3, stdout: "" });
    expect(run.stderr).toMatch(/can't be understood: no line of a flow stream: it is no JSON/);
  });

  test("nobody listens", async () => {
    expect(await cli(["monitor", "--socket", "/nonexistent"])).toMatchObject({ status: 3, stdout: "" });
  });
});
