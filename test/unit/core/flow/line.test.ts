// SPDX-License-Identifier: Apache-2.0
// What may stand on a line of a stream that somebody else has written.
import { describe, expect, test } from "vitest";
import { type FlowFilter, isWanted } from "../../../../src/core/flow/filter.ts";
import { type FlowRecord, LINE_MAX, parseFlowLine } from "../../../../src/core/flow/line.ts";
import { FLOW_REASONS, FLOW_VERDICTS, FLOW_WORDS, wordOf } from "../../../../src/core/flow/words.ts";
import { VERDICTS } from "../../../../src/core/verdicts.ts";
import { COUNTS, FLOWS, HEAD } from "../../../fixtures/flows.ts";

const [FLOW] = FLOWS;

describe("a line", () => {
  test.each([HEAD, COUNTS, ...FLOWS])("is read as it was written: $type", (line) => {
    expect(parseFlowLine(JSON.stringify(line))).toEqual(line);
  });

  test("of a later version keeps what we know of it", () => {
    expect(parseFlowLine(JSON.stringify({ ...FLOW, bytes: 7 }))).toEqual(FLOW);
  });

  test("has addresses in one form, whoever wrote them", () => {
    const { source } = parseFlowLine(JSON.stringify({ ...FLOW, source: "::FFFF:10.1.2.3" })) as FlowRecord;
    expect(source).toBe("10.1.2.3");
  });

  test.each<[string, string, RegExp]>([
    ["nothing", "", /no JSON/],
    ["half a line", JSON.stringify(FLOW).slice(0, 40), /no JSON/],
    ["a number", "17", /expected|Expected/i],
    ["null", "null", /expected|Expected/i],
    ["a list", "[1]", /type/],
    ["another type", '{"type":"packet"}', /type/],
    ["a type that every object has", '{"type":"constructor"}', /type/],
    ["another schema", JSON.stringify({ ...HEAD, schemaVersion: 2 }), /schemaVersion is 2/],
    ["a port of a larger machine", JSON.stringify({ ...FLOW, destinationPort: 70_000 }), /destinationPort/],
    ["a port that is text", JSON.stringify({ ...FLOW, destinationPort: "80" }), /destinationPort/],
    ["an address that is none", JSON.stringify({ ...FLOW, destination: "example.org" }), /destination.*not an IP/],
    ["a verdict that is none", JSON.stringify({ ...FLOW, verdict: "maybe" }), /verdict/],
    ["a time that is none", JSON.stringify({ ...FLOW, at: "yesterday" }), /at: /],
    ["a name without end", JSON.stringify({ ...FLOW, pod: "p".repeat(2000) }), /pod/],
    ["a line without end", JSON.stringify({ ...FLOW, x: "y".repeat(LINE_MAX) }), /longer than 16384/],
    ["fewer than no losses", '{"type":"lost","at":"2026-01-01T00:00:00Z","events":-1,"by":"kernel"}', /events/],
    ["a prototype", '{"__proto__":{"type":"flow"}}', /type/],
    ["depth without end", "[".repeat(8000) + "]".repeat(8000), /type|no JSON/],
  ])("is none: %s", (_, line, why) => {
    expect(() => parseFlowLine(line)).toThrow(why);
  });

  test("is never repeated by what is said of it", () => {
    expect(() => parseFlowLine('{"type":"flow","pod":"\u001b[2J"}')).toThrow(/^[ -~]*$/);
  });
});

describe("a filter", () => {
  const all: FlowFilter = {
    ...{ pods: [], namespaces: [], verdicts: [], direction: undefined },
    ...{ sources: [], destinations: [], ports: [] },
  };
  const shown = (filter: Partial<FlowFilter>) =>
    FLOWS.filter((line) => isWanted(line, { ...all, ...filter })).map(({ reason }) => reason);

  test.each<[string, Partial<FlowFilter>, readonly string[]]>([
    ["nothing", {}, ["outbound", "probe", "leak", "hbone", "dns"]],
    ["a pod", { pods: ["shop/web-7f4c"] }, ["outbound", "probe"]],
    ["a pod's beginning", { pods: ["web"] }, ["outbound", "probe"]],
    ["a pod's uid", { pods: ["uid-cart"] }, ["leak"]],
    ["one of several pods", { pods: ["shop/web", "shop/cart"] }, ["outbound", "probe", "leak"]],
    ["a namespace", { namespaces: ["billing"] }, ["hbone"]],
    ["a namespace, wholly", { namespaces: ["bill"] }, []],
    ["verdicts", { verdicts: ["passed", "dropped"] }, ["probe", "leak"]],
    ["a reason", { verdicts: ["hbone"] }, ["hbone"]],
    ["a direction", { direction: "in" }, ["probe", "hbone"]],
    ["a source", { sources: ["10.1.2.0/24"] }, ["outbound", "leak"]],
    ["a destination of the other family", { destinations: ["fd00::/8"] }, ["hbone"]],
    ["a port at either end", { ports: [8080, 53] }, ["outbound", "probe", "dns"]],
    ["all of it", { direction: "out", ports: [8080], verdicts: ["ztunnel"] }, ["outbound"]],
    ["a flow of nobody", { pods: ["uid-gone"] }, []],
  ])("by %s", (_, filter, reasons) => {
    expect(shown(filter)).toEqual(reasons);
  });

  test("leaves sums of a pod unless single flows are asked for, and always what is missing", () => {
    const lost = { type: "lost", at: HEAD.takenAt, events: 1, by: "kernel" } as const;
    expect(isWanted(COUNTS, { ...all, pods: ["shop/old"] })).toBe(true);
    expect(isWanted(COUNTS, { ...all, pods: ["web"] })).toBe(false);
    expect(isWanted(COUNTS, { ...all, direction: "in" })).toBe(false);
    expect(isWanted(lost, { ...all, pods: ["web"], ports: [1] })).toBe(true);
  });
});

test("a word of another version is shown as it is", () => {
  expect(wordOf("inbound_teleported")).toMatchObject({ direction: "in", reason: "inbound_teleported" });
  expect(wordOf("constructor").reason).toBe("constructor");
});

test("every word that is counted has a meaning", () => {
  expect(VERDICTS.filter((word) => !Object.hasOwn(FLOW_WORDS, word))).toEqual([]);
});

test("no word is both a verdict and a reason", () => {
  expect(FLOW_REASONS.filter((reason) => FLOW_VERDICTS.some((verdict) => verdict === reason))).toEqual([]);
});
