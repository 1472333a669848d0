// SPDX-License-Identifier: Apache-2.0
// One line of a stream of flows. The first one is its head; the agent makes them, files keep them.
import * as v from "valibot";
import { AgentError } from "../errors.ts";
import { canonicalIp } from "../ip.ts";
import { about, HEAD } from "../report/document.ts";
import { FLOW_DIRECTIONS, FLOW_VERDICTS } from "./words.ts";

/** Characters of a line; a longer one is none of ours. */
export const LINE_MAX = 16 * 1024;

const text = v.pipe(v.string(), v.maxLength(1024));
const port = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(65_535));
const counter = v.pipe(v.number(), v.integer(), v.minValue(0));
const at = about("RFC 3339.", v.pipe(v.string(), v.isoTimestamp()));
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

const headSchema = about(
  "The first line: whose stream it is.",
  v.object({
    ...HEAD,
    type: about("Of this line.", v.literal("head")),
    engines: about("Captured pods by engine. Only ebpf tells single flows.", v.record(text, counter)),
  }),
);

const flowSchema = about(
  "A decision about a connection, a DNS question or a SYN.",
  v.object({
    type: about("Of this line.", v.literal("flow")),
    at,
    pod: about("`namespace/name`; null: of a netns that is no pod's any more.", v.nullable(text)),
    uid: about("Of the pod.", v.nullable(text)),
    direction: about("As the pod sees it.", v.picklist(FLOW_DIRECTIONS)),
    protocol: about("TCP, or a DNS question over UDP.", v.picklist(["tcp", "udp"])),
    source: about("Address, as the kernel decided about it.", address),
    sourcePort: about("null: not chosen yet when it was decided.", v.nullable(port)),
    destination: about("Address that was meant.", address),
    destinationPort: about("The same.", port),
    peer: about("The pod of this node that is the other end; null: none, or not known.", v.nullable(text)),
    verdict: about(
      "Where it went: to ztunnel (or from it), past it, nowhere with an answer, nowhere without.",
      v.picklist(FLOW_VERDICTS),
    ),
    reason: about("Stable word, in [the list of reasons](MONITOR.md).", text),
  }),
);

const lostSchema = about(
  "Flows that nobody can be told of any more.",
  v.object({
    type: about("Of this line.", v.literal("lost")),
    at,
    events: about("How many.", counter),
    by: about(
      "kernel: its ring was full; reader: who reads this stream was too slow for it.",
      v.picklist(["kernel", "reader"]),
    ),
  }),
);

const blindSchema = about(
  "Nothing was told: nobody knows how many flows that were.",
  v.object({
    type: about("Of this line.", v.literal("blind")),
    at,
    milliseconds: about("For so long before `at` nothing was told.", counter),
  }),
);

const countsSchema = about(
  "What an engine without single flows has decided in this time, by the datapath's words.",
  v.object({
    type: about("Of this line.", v.literal("counts")),
    at,
    pod: about("`namespace/name`.", text),
    uid: about("Of the pod.", text),
    engine: about("By which it is captured.", text),
    milliseconds: about("The time that was counted.", counter),
    counts: about("By the datapath's words.", v.record(text, counter)),
  }),
);

/** What the monitor tells. */
export const lineSchema = v.variant("type", [headSchema, flowSchema, lostSchema, blindSchema, countsSchema]);

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
