// SPDX-License-Identifier: Apache-2.0
import { expect, test } from "vitest";
import type { Decision } from "../../../src/core/ports/journal.ts";
import type { Logger } from "../../../src/core/ports/telemetry.ts";
import { DecisionJournal } from "../../../src/telemetry/journal.ts";

function journal() {
  const lines: string[] = [];
  const write = (level: string) => (message: string, fields?: object) => {
    lines.push(`${level} ${message} ${JSON.stringify(fields)}`);
  };
  const logger: Logger = {
    debug: write("debug"),
    info: write("info"),
    warn: write("warn"),
    error: write("error"),
    child: () => logger,
  };
  let now = 0;
  return { lines, decisions: new DecisionJournal(logger, () => ++now) };
}

const WEB = { uid: "u1", name: "shop/web" };
const CAPTURED: Decision = {
  what: "captured",
  engine: "ebpf",
  milliseconds: 1.23456,
  phases: { capture: 1.00001 },
  reason: "cni",
  detail: "10.1.2.3",
};
const FAILED: Decision = { what: "pass failed", reason: "NO_ZTUNNEL", detail: "none is connected" };

test("each decision is one line of the log, with pod, engine, duration and reason", () => {
  const { lines, decisions } = journal();
  decisions.note(WEB, CAPTURED);
  decisions.note(WEB, { what: "cni add", milliseconds: 2, reason: "selected", detail: "" });
  expect(lines).toEqual([
    'info captured {"pod":"shop/web","engine":"ebpf","ms":1.23,"phases":{"capture":1},"reason":"cni","detail":"10.1.2.3"}',
    'debug cni add {"pod":"shop/web","ms":2,"reason":"selected"}',
  ]);
});

test("what repeats itself is one record, and after three times no news", () => {
  const { lines, decisions } = journal();
  decisions.note(WEB, CAPTURED);
  for (let times = 0; times < 5; times++) decisions.note(WEB, { ...FAILED, nextTryMs: 100 * times });
  decisions.note(WEB, { ...FAILED, detail: "another" });
  expect(decisions.of("u1").map(({ decision, at, times }) => [decision.what, decision.detail, at, times])).toEqual([
    ["captured", "10.1.2.3", 1, 1],
    ["pass failed", "none is connected", 6, 5],
    ["pass failed", "another", 7, 1],
  ]);
  expect(lines.map((line) => line.split(" ")[0])).toEqual(["info", "warn", "warn", "warn", "debug", "debug", "warn"]);
});

test("what the caller calls no news is a line for debugging", () => {
  const { lines, decisions } = journal();
  decisions.note(WEB, { what: "repaired", detail: "chain x is missing" }, true);
  expect(lines[0]).toMatch(/^debug repaired/);
});

test("it never grows beyond its bounds, and keeps the newest", () => {
  const { decisions } = journal();
  for (let index = 0; index < 1000; index++) {
    const pod = { uid: `u${index}`, name: `shop/p${index}` };
    for (let more = 0; more < 40; more++) decisions.note(pod, { ...CAPTURED, detail: `${more} ${"x".repeat(9999)}` });
    // Long known, and still talked about.
    decisions.note(WEB, { ...FAILED, detail: String(index) });
  }
  expect(decisions.pods()).toHaveLength(512);
  expect(decisions.pods().at(-1)).toEqual(WEB);
  expect(decisions.of("u0")).toEqual([]);
  const last = decisions.of("u999");
  expect(last).toHaveLength(32);
  expect(last[31]?.decision.detail).toMatch(/^39 x+\.\.\.$/);
  expect(last[31]?.decision.detail).toHaveLength(400);
  expect(decisions.of("nobody")).toEqual([]);
});
