// SPDX-License-Identifier: Apache-2.0
import type { Decision, DecisionKind, DecisionRecord, Journal } from "../core/ports/journal.ts";
import type { LogFields, Logger } from "../core/ports/telemetry.ts";

/** Decisions kept per pod. */
const KEPT = 32;
/** Pods whose decisions are kept, those that are gone included: the least recently decided about goes first. */
const MAX_PODS = 512;
/** Of a text in it; the log has the whole one. */
const MAX_TEXT = 400;
/** A failure that repeats itself is news so many times. */
const NEWS = 3;

type Level = "debug" | "info" | "warn";

const LEVEL: Readonly<Record<DecisionKind, Level>> = {
  "cni add": "debug",
  adopted: "debug",
  captured: "info",
  redirected: "info",
  repaired: "warn",
  "pass failed": "warn",
  "netns replaced": "info",
  annotated: "debug",
  "ztunnel acked": "debug",
  "ztunnel refused": "warn",
  draining: "info",
  released: "info",
  "sandbox gone": "debug",
  "found captured": "warn",
  forgotten: "info",
  "older connections": "info",
};

interface Timeline {
  readonly name: string;
  readonly records: DecisionRecord[];
}

/** The last decisions of each pod in memory, and each of them in the log. */
export class DecisionJournal implements Journal {
  /** In the order of their last decisions. */
  readonly #timelines = new Map<string, Timeline>();

  constructor(
    private readonly logger: Logger,
    private readonly now: () => number = Date.now,
  ) {}

  note({ uid, name }: { readonly uid: string; readonly name: string }, decision: Decision, quiet = false): void {
    const records = this.#timelines.get(uid)?.records ?? [];
    this.#timelines.delete(uid);
    this.#timelines.set(uid, { name, records });
    if (this.#timelines.size > MAX_PODS) {
      const [oldest] = this.#timelines.keys();
      if (oldest !== undefined) this.#timelines.delete(oldest);
    }
    const last = records.at(-1);
    const repeats = last !== undefined && isSame(last.decision, decision) ? last.times : 0;
    if (repeats > 0) records.pop();
    records.push({ decision: bounded(decision), at: this.now(), times: repeats + 1 });
    if (records.length > KEPT) records.shift();
    const news = !quiet && repeats < NEWS;
    this.logger[news ? LEVEL[decision.what] : "debug"](decision.what, fields(name, decision));
  }

  of(uid: string): readonly DecisionRecord[] {
    return [...(this.#timelines.get(uid)?.records ?? [])];
  }

  pods(): readonly { readonly uid: string; readonly name: string }[] {
    return [...this.#timelines].map(([uid, { name }]) => ({ uid, name }));
  }
}

/** Times differ and don't count. */
function isSame(a: Decision, b: Decision): boolean {
  return a.what === b.what && a.engine === b.engine && a.reason === b.reason && cut(a.detail) === cut(b.detail);
}

function bounded({ detail, ...decision }: Decision): Decision {
  return detail === undefined ? decision : { ...decision, detail: cut(detail) ?? "" };
}

function cut(text: string | undefined): string | undefined {
  return text === undefined || text.length <= MAX_TEXT ? text : `${text.slice(0, MAX_TEXT - 3)}...`;
}

function fields(pod: string, { engine, milliseconds, phases, reason, detail, nextTryMs }: Decision): LogFields {
  const known: Record<string, unknown> = { pod };
  if (engine !== undefined) known.engine = engine;
  if (milliseconds !== undefined) known.ms = rounded(milliseconds);
  if (phases !== undefined) {
    known.phases = Object.fromEntries(Object.entries(phases).map(([name, ms]) => [name, rounded(ms)]));
  }
  if (reason !== undefined) known.reason = reason;
  if (detail !== undefined && detail !== "") known.detail = detail;
  if (nextTryMs !== undefined) known.nextTryMs = nextTryMs;
  return known;
}

const rounded = (ms: number) => Math.round(ms * 100) / 100;
