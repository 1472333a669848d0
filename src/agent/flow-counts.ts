// SPDX-License-Identifier: Apache-2.0
import { codeOf } from "../core/errors.ts";
import type { FlowCounts } from "../core/flow/line.ts";
import type { Enrollment } from "./enrollment.ts";
import type { Parts } from "./parts.ts";
import type { Roster } from "./roster.ts";

/** ms of one turn: pods that are left have theirs at the next one. */
const BUDGET_MS = 25;

interface Seen {
  readonly at: number;
  readonly netns: string;
  readonly counters: Readonly<Record<string, number>>;
}

/** What engines that tell no single flows have decided, from one turn to the next: by the counters of their rules. */
export class FlowCounters {
  readonly #seen = new Map<string, Seen>();
  /** Uid of the pod whose turn was the last one. */
  #last = "";

  constructor(
    private readonly parts: Parts,
    private readonly roster: Roster,
  ) {}

  /** Reads as many pods as the time allows. */
  turn(): FlowCounts[] {
    const { clock } = this.parts;
    const began = clock.now();
    const pods = [...this.roster.all()].filter(({ engine }) => engine !== undefined && engine !== "ebpf");
    const uids = new Set(pods.map(({ uid }) => uid));
    for (const uid of this.#seen.keys()) if (!uids.has(uid)) this.#seen.delete(uid);
    const first = pods.findIndex(({ uid }) => uid === this.#last) + 1;
    const lines: FlowCounts[] = [];
    for (const pod of [...pods.slice(first), ...pods.slice(0, first)]) {
      if (clock.now() - began > BUDGET_MS) break;
      this.#last = pod.uid;
      const line = this.#read(pod);
      if (line !== undefined) lines.push(line);
    }
    return lines;
  }

  #read({ uid, name, netns, engine }: Enrollment): FlowCounts | undefined {
    if (netns === undefined || engine === undefined) return undefined;
    const { clock } = this.parts;
    let counters: Readonly<Record<string, number>>;
    try {
      counters = this.parts.dataplane.verdicts(netns, engine);
    } catch (error) {
      this.parts.logger.debug("a pod's counters can't be read", { pod: name, error: codeOf(error) });
      return undefined;
    }
    const before = this.#seen.get(uid);
    const now = { at: clock.now(), netns: netns.id, counters };
    this.#seen.set(uid, now);
    if (before?.netns !== now.netns) return undefined;
    const counts: Record<string, number> = {};
    for (const [word, count] of Object.entries(counters)) {
      const more = count - (before.counters[word] ?? 0);
      // Fewer: the rules were made anew.
      if (more > 0) counts[word] = more;
    }
    if (Object.keys(counts).length === 0) return undefined;
    const milliseconds = Math.round(now.at - before.at);
    return { type: "counts", at: new Date().toISOString(), pod: name, uid, engine, milliseconds, counts };
  }
}
