// SPDX-License-Identifier: Apache-2.0
import { expect, test } from "vitest";
import { parseDestination } from "../../../src/core/flow/destination.ts";
import type { TraceReport } from "../../../src/core/report/trace.ts";
import { PODS } from "../../fixtures/reports.ts";
import { cli, withAgent } from "../../support/cli-env.ts";

const { source, takenAt, node } = PODS;
const TRACE: TraceReport = {
  ...{ schemaVersion: 1, source, takenAt, node },
  ...{ uid: "uid-web", pod: "shop/web-7f4c", destination: "10.1.9.4:8080", verdict: "ztunnel", problem: null },
  hops: [
    { milliseconds: 0, hop: "decision", result: "ok", text: "ztunnel (outbound): to ztunnel's 15001" },
    { milliseconds: 0.31, hop: "connect", result: "ok", text: "connected, from 10.1.2.14:40000" },
    { milliseconds: 0.52, hop: "answer", result: "ok", text: "by ztunnel at port 15001" },
    { milliseconds: 151.2, hop: "onward", result: "unseen", text: "handed to ztunnel" },
    { milliseconds: 151.6, hop: "end", result: "ok", text: "reset; no socket is left" },
  ],
};

async function transcript(trace: TraceReport, ...args: readonly string[]): Promise<string> {
  let text = "";
  await withAgent({ pods: PODS, trace }, async (socket) => {
    const { status, stdout, stderr } = await cli(["trace", ...args, "--socket", socket]);
    text = `$ ambient-cni trace ${args.join(" ")}\n${stdout}${stderr}[${status}]\n`;
  });
  return text;
}

test("hops, and a verdict that is the exit status", async () => {
  const refused = {
    ...TRACE,
    verdict: "refused",
    hops: [{ ...(TRACE.hops[1] ?? TRACE.hops), result: "failed", text: "connect: Connection refused" }],
  } as TraceReport;
  const texts = [
    await transcript(TRACE, "web", "10.1.9.4:8080"),
    await transcript({ ...TRACE, verdict: "passed" }, "web", "web"),
    await transcript(refused, "web", "10.1.9.4"),
    await transcript(
      { ...TRACE, hops: [], verdict: null, problem: "it has the node's network" },
      "web",
      "[fd00::4]:443",
    ),
    await transcript(TRACE, "web", "nowhere:80"),
    await transcript(TRACE, "web", "10.1.9.4:99999"),
    await transcript(TRACE, "wep", "10.1.9.4"),
  ];
  await expect(texts.join("\n")).toMatchFileSnapshot("golden/trace.txt");
});

test("only the agent can: nobody listens", async () => {
  expect(await cli(["trace", "web", "10.1.9.4", "--socket", "/nonexistent"])).toMatchObject({ status: 3, stdout: "" });
});

test.each<[string, string | RegExp]>([
  ["10.1.9.4:8080", "10.1.9.4 8080"],
  ["10.1.9.4", "10.1.9.4 80"],
  ["[fd00::4]:443", "fd00::4 443"],
  ["[FD00::4]", "fd00::4 80"],
  ["fd00::4", "fd00::4 80"],
  ["::ffff:10.1.9.4", "10.1.9.4 80"],
  ["10.1.9.4:0", /no address with a port/],
  ["10.1.9.4:65536", /no address with a port/],
  ["10.1.9.4:80:80", /no address with a port/],
  ["[10.1.9.4", /no address with a port/],
  ["example.org:80", /no address with a port/],
  ["", /no address with a port/],
  ["\u001b[2J", /no address with a port/],
])("a destination %j", (text, expected) => {
  const parsed = () => {
    const { address, port } = parseDestination(text);
    return `${address} ${port}`;
  };
  if (typeof expected === "string") expect(parsed()).toBe(expected);
  else expect(parsed).toThrow(expected);
});
