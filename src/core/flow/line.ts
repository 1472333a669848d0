// SPDX-License-Identifier: Apache-2.0
// One line of a stream of flows. The first one is its head; the agent makes them, files keep them.
import * as v from "valibot";
import { AgentError } from "../errors.ts";
import { canonicalIp } from "../ip.ts";
import { HEAD } from "../report/document.ts";
import { FLOW_DIRECTIONS, FLOW_VERDICTS } from "./words.ts";

/** Characters of a line; a longer one is none of ours. */
export const LINE_MAX = 16 * 1024;

const text = v.pipe(v.string(), v.maxLength(1024));
const port = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(65_535));
const counter = v.pipe(v.number(), v.integer(), v.minValue(0));
const at = v.pipe(v.string(), v.isoTimestamp());
const address = v.pipe(
  v.string(),
  v.maxLength(64),
  v.rawTransform(({ dataset: { value }, addIssue, NEVER }) => {
    try {
      return canonicalIp(value);
    } catch (error) {
      addIssue({ message: String(error) });
      return NEVER;
    }
  }),
);

const headSchema = v.object({
  ...HEAD,
  type: v.literal("head"),
  /** Captured pods by engine. Only ebpf tells single flows. */
  engines: v.record(text, counter),
});

const flowSchema = v.object({
  type: v.literal("flow"),
  at,
  /** `namespace/name`; null: of a netns that is no pod's any more. */
  pod: v.nullable(text),
  uid: v.nullable(text),
  direction: v.picklist(FLOW_DIRECTIONS),
  protocol: v.picklist(["tcp", "udp"]),
  source: address,
  /** null: not chosen yet when it was decided. */
  sourcePort: v.nullable(port),
  destination: address,
  destinationPort: port,
  /** The pod of this node that is the other end; null: none, or not known. */
  peer: v.nullable(text),
  verdict: v.picklist(FLOW_VERDICTS),
  reason: text,
});

const lostSchema = v.object({
  type: v.literal("lost"),
  at,
  events: counter,
  /** kernel: its ring was full; reader: who reads this stream was too slow for it. */
  by: v.picklist(["kernel", "reader"]),
});

/** For so long before `at` nothing was told: nobody knows how many flows that were. */
const blindSchema = v.object({ type: v.literal("blind"), at, milliseconds: counter });

/** What an engine without single flows has decided in this time, by the datapath's words. */
const countsSchema = v.object({
  type: v.literal("counts"),
  at,
  pod: text,
  uid: text,
  engine: text,
  milliseconds: counter,
  counts: v.record(text, counter),
});

const lineSchema = v.variant("type", [headSchema, flowSchema, lostSchema, blindSchema, countsSchema]);

export type FlowLine = v.InferOutput<typeof lineSchema>;
export type FlowRecord = v.InferOutput<typeof flowSchema>;
export type FlowHead = v.InferOutput<typeof headSchema>;
export type FlowCounts = v.InferOutput<typeof countsSchema>;

/**
 * Reads one line.
 * @throws AgentError FLOW_LINE_INVALID that says what is wrong, without the line
 */
export function parseFlowLine(line: string): FlowLine {
  if (line.length > LINE_MAX) throw invalid(`it is longer than ${LINE_MAX} characters`);
  let json: unknown;
  try {
    json = JSON.parse(line);
  } catch {
    throw invalid("it is no JSON");
  }
  const result = v.safeParse(lineSchema, json);
  if (result.success) return result.output;
  const [issue] = result.issues;
  const path = v.getDotPath(issue);
  throw invalid(`${path === null ? "" : `${path}: `}${issue.message}`);
}

function invalid(why: string): AgentError {
  return new AgentError("FLOW_LINE_INVALID", `no line of a flow stream: ${why}`);
}
