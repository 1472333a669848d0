// SPDX-License-Identifier: Apache-2.0
import type { FlowCounts, FlowHead, FlowLine, FlowRecord } from "../../core/flow/line.ts";
import { FLOW_WORDS } from "../../core/flow/words.ts";
import { counted } from "../../core/report/words.ts";
import type { Paint, Style } from "./paint.ts";
import { visible } from "./text.ts";

const STYLE: Readonly<Record<FlowRecord["verdict"], Style>> = {
  ztunnel: "green",
  passed: "yellow",
  refused: "red",
  dropped: "red",
};

/** Widths of what comes before the addresses: lines are written as they come, so no column can be measured. */
const VERDICT = 7;
const REASON = 11;

/** A line for people; a head has none, see `headNotes`. `wide`: with the reason as a sentence. */
export function flowText(line: FlowLine, wide: boolean, paint: Paint): string {
  switch (line.type) {
    case "head":
      return "";
    case "flow":
      return flowLine(line, wide, paint);
    case "counts":
      return countsLine(line, paint);
    case "lost":
      return noteLine(line.at, `${counted(line.events, "flow")} lost: ${LOST_BY[line.by]}`, paint);
    case "blind":
      return noteLine(line.at, `the agent was late: of ${line.milliseconds} ms nothing is known`, paint);
  }
}

const LOST_BY = { kernel: "they came faster than they are read", reader: "this stream was not read fast enough" };

/** What can't be seen, and why; for the error stream. */
export function headNotes({ engines }: FlowHead): readonly string[] {
  return Object.entries(engines)
    .filter(([engine, pods]) => engine !== "ebpf" && pods > 0)
    .map(
      ([engine, pods]) =>
        `${counted(pods, "pod")} captured by ${visible(engine)}: what its rules count is shown, not single flows`,
    );
}

function flowLine(flow: FlowRecord, wide: boolean, paint: Paint): string {
  const { at, direction, protocol, verdict, reason } = flow;
  const own = flow.pod;
  const source = endText(
    direction === "out" ? own : null,
    flow.source,
    flow.sourcePort,
    direction === "in" ? flow.peer : null,
  );
  const destination = endText(
    direction === "in" ? own : null,
    flow.destination,
    flow.destinationPort,
    direction === "out" ? flow.peer : null,
  );
  const known = Object.values(FLOW_WORDS).find((word) => word.reason === reason && word.direction === direction);
  const why = (wide || verdict === "refused" || verdict === "dropped") && known !== undefined ? `  ${known.text}` : "";
  const words = `${paint(STYLE[verdict], verdict.padEnd(VERDICT))} ${visible(reason).padEnd(REASON)}`;
  return `${time(at)} ${direction.padEnd(3)} ${protocol} ${words} ${source} > ${destination}${why}\n`;
}

/** The pod itself by its name, somebody else by address, and by name beside it. */
function endText(own: string | null, address: string, port: number | null, peer: string | null): string {
  const host = own === null ? (address.includes(":") ? `[${address}]` : address) : visible(own);
  const end = port === null ? host : `${host}:${port}`;
  return peer === null ? end : `${end} (${visible(peer)})`;
}

function countsLine({ at, pod, engine, milliseconds, counts }: FlowCounts, paint: Paint): string {
  const sums = Object.entries(counts)
    .map(([word, count]) => `${visible(word)} +${count}`)
    .join(", ");
  const seconds = (milliseconds / 1000).toFixed(1);
  return `${time(at)} ${paint("dim", `${visible(engine)} counted in ${seconds} s:`)} ${visible(pod)}  ${sums}\n`;
}

function noteLine(at: string, text: string, paint: Paint): string {
  return `${time(at)} ${paint("red", `! ${text}`)}\n`;
}

/** UTC, as in the agent's log. */
function time(at: string): string {
  return at.slice(11, 23);
}
