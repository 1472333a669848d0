// SPDX-License-Identifier: Apache-2.0
import type { Stop } from "../core/disposable.ts";
import { messageOf } from "../core/errors.ts";
import type { FlowHead, FlowLine, FlowRecord } from "../core/flow/line.ts";
import { wordOf } from "../core/flow/words.ts";
import type { Flow, FlowBatch, FlowSource } from "../core/ports/flows.ts";
import { FlowCounters } from "./flow-counts.ts";
import { FlowNames } from "./flow-names.ts";
import type { Parts } from "./parts.ts";
import type { AgentReport } from "./report.ts";
import type { Roster } from "./roster.ts";

/** Lines that are kept for `--last`. */
export const HISTORY_MAX = 1000;
const COUNTERS_MS = 1000;

/** Who reads lines. False: there is no room for them, and they are gone. */
export type FlowSink = (text: string) => boolean;

/** Who hears of flows within the agent. */
export type FlowHearer = (flows: readonly FlowRecord[]) => void;

interface Reader {
  readonly sink: FlowSink;
  /** What found no room since the last that did. */
  missed: Missed;
}

interface Missed {
  /** Flows that were told, and did not come to this reader. */
  readonly reader: number;
  /** Flows that nobody was told. */
  readonly kernel: number;
  readonly blindMs: number;
}

const NOTHING: Missed = { reader: 0, kernel: 0, blindMs: 0 };

/**
 * Flows of all pods, for as long as somebody reads: with the first reader the datapath begins to tell, with the last
 * it ends. A reader that is too slow loses lines, is told how many, and slows nobody.
 */
export class Monitor {
  readonly #readers = new Set<Reader>();
  readonly #hearers = new Set<FlowHearer>();
  readonly #names: FlowNames;
  readonly #history: string[] = [];
  #stops: Stop[] = [];

  constructor(
    private readonly parts: Parts,
    private readonly roster: Roster,
    private readonly report: AgentReport,
    private readonly source: FlowSource,
  ) {
    this.#names = new FlowNames(parts, roster, (netns) => source.keyOf(netns));
  }

  /** Sends the head, up to `last` flows of earlier readers' time, and then what happens, until it is stopped. */
  read(sink: FlowSink, last: number): Stop {
    const reader: Reader = { sink, missed: NOTHING };
    // Before anything is sent: what can't be begun is an error of the request.
    const stop = this.#joined(this.#readers, reader);
    const history = last > 0 ? this.#history.slice(-last) : [];
    sink(textOf(this.#head()) + history.join(""));
    return stop;
  }

  /** Tells what happens, until it is stopped. */
  hear(hearer: FlowHearer): Stop {
    return this.#joined(this.#hearers, hearer);
  }

  /** Somebody more who listens: the first begins, the last ends it. */
  #joined<T>(all: Set<T>, one: T): Stop {
    if (this.#silent) this.#begin();
    all.add(one);
    return () => {
      if (all.delete(one) && this.#silent) this.#end();
    };
  }

  get #silent(): boolean {
    return this.#readers.size + this.#hearers.size === 0;
  }

  #head(): FlowHead {
    const engines: Record<string, number> = {};
    for (const { engine, netns } of this.roster.all())
      if (engine !== undefined && netns !== undefined) engines[engine] = (engines[engine] ?? 0) + 1;
    return { ...this.report.head(), type: "head", engines };
  }

  #begin(): void {
    const { clock, logger } = this.parts;
    const counters = new FlowCounters(this.parts, this.roster);
    let open: Stop | undefined;
    let told = "";
    const failed = (error: unknown): void => {
      const message = messageOf(error);
      if (message !== told) logger.warn("flows can't be read", { error: message });
      told = message;
    };
    // Also where the engine comes to work later: asked again with each turn.
    const ensure = (): void => {
      if (open !== undefined || !this.source.available) return;
      open = this.source.open(
        (batch) => this.#told(batch),
        (error) => {
          failed(error);
          open = undefined;
        },
      );
    };
    let cancel: Stop = () => undefined;
    const turn = (): void => {
      cancel = clock.after(COUNTERS_MS, () => {
        turn();
        try {
          ensure();
          this.#send(counters.turn().map(textOf).join(""), 0, NOTHING);
        } catch (error) {
          failed(error);
        }
      });
    };
    ensure();
    counters.turn();
    turn();
    this.#stops = [() => cancel(), () => open?.()];
    logger.debug("flows are monitored: somebody reads them");
  }

  #end(): void {
    for (const stop of this.#stops.splice(0)) stop();
    this.parts.logger.debug("flows are not monitored any more");
  }

  #told({ flows, lost, blindMs }: FlowBatch): void {
    const records = flows.map((flow) => this.#record(flow));
    for (const hear of this.#hearers) hear(records);
    const lines = records.map(textOf);
    this.#history.push(...lines.slice(-HISTORY_MAX));
    this.#history.splice(0, Math.max(0, this.#history.length - HISTORY_MAX));
    this.#send(lines.join(""), lines.length, { ...NOTHING, kernel: lost, blindMs });
  }

  /** The same text for all readers: what is made of flows does not grow with their number. */
  #send(text: string, flows: number, missed: Missed): void {
    if (text === "" && missed === NOTHING) return;
    for (const reader of this.#readers) {
      const before = reader.missed;
      // What found no room in the ring came after what did.
      if (reader.sink(missedText(before) + text + missedText(missed))) reader.missed = NOTHING;
      else
        reader.missed = {
          reader: before.reader + flows,
          kernel: before.kernel + missed.kernel,
          blindMs: before.blindMs + missed.blindMs,
        };
    }
  }

  #record(flow: Flow): FlowRecord {
    const { direction, verdict, reason } = wordOf(flow.word);
    const pod = this.#names.ofNetns(flow.netns);
    return {
      type: "flow",
      at: new Date(flow.at).toISOString(),
      pod: pod?.name ?? null,
      uid: pod?.uid ?? null,
      direction,
      protocol: flow.protocol,
      source: flow.source,
      sourcePort: flow.sourcePort === 0 ? null : flow.sourcePort,
      destination: flow.destination,
      destinationPort: flow.destinationPort,
      peer: this.#names.ofAddress(direction === "out" ? flow.destination : flow.source) ?? null,
      verdict,
      reason,
    };
  }
}

function textOf(line: FlowLine): string {
  return `${JSON.stringify(line)}\n`;
}

function missedText({ reader, kernel, blindMs }: Missed): string {
  const at = new Date().toISOString();
  return [
    blindMs > 0 ? textOf({ type: "blind", at, milliseconds: blindMs }) : "",
    kernel > 0 ? textOf({ type: "lost", at, events: kernel, by: "kernel" }) : "",
    reader > 0 ? textOf({ type: "lost", at, events: reader, by: "reader" }) : "",
  ].join("");
}
