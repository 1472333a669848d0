// SPDX-License-Identifier: Apache-2.0

import { podKey } from "../core/pod.ts";
import type { PodRef } from "../core/ports.ts";

/** One decision about a pod, as `inspect` shows it. */
export interface JournalEntry {
  /** RFC 3339. */
  readonly time: string;
  /** A stable word or two: "enrolled", "retry", "capture repaired". */
  readonly decision: string;
  /** Why, in a sentence; may be empty. */
  readonly detail: string;
  /** How often the same came in a row; `time` is the last time. */
  readonly count: number;
}

export interface PodJournal {
  readonly uid: string;
  /** `namespace/name` */
  readonly pod: string;
  /** Oldest first. */
  readonly entries: readonly JournalEntry[];
}

export interface JournalOptions {
  /** Entries kept per pod, default 32. */
  readonly perPod?: number;
  /** Pods kept, default 1024; the one that was quiet longest goes first. */
  readonly pods?: number;
  readonly now?: () => Date;
}

const MAX_DETAIL = 500;

/** The last decisions about each pod, bounded in both directions. Pods that are gone stay until they are pushed out. */
export class Journal {
  readonly #perPod: number;
  readonly #limit: number;
  readonly #now: () => Date;
  /** In the order of their last entry. */
  readonly #pods = new Map<string, { readonly pod: string; readonly entries: JournalEntry[] }>();

  constructor(options: JournalOptions = {}) {
    this.#perPod = options.perPod ?? 32;
    this.#limit = options.pods ?? 1024;
    this.#now = options.now ?? (() => new Date());
  }

  /** Notes a decision; the same one again in a row only counts up. */
  note(pod: PodRef, decision: string, detail = ""): void {
    const time = this.#now().toISOString();
    const text = detail.length > MAX_DETAIL ? `${detail.slice(0, MAX_DETAIL - 3)}...` : detail;
    const kept = this.#pods.get(pod.uid) ?? { pod: podKey(pod), entries: [] };
    const last = kept.entries.at(-1);
    if (last?.decision === decision && last.detail === text) {
      kept.entries[kept.entries.length - 1] = { ...last, time, count: last.count + 1 };
    } else {
      kept.entries.push({ time, decision, detail: text, count: 1 });
      if (kept.entries.length > this.#perPod) kept.entries.shift();
    }
    this.#pods.delete(pod.uid);
    this.#pods.set(pod.uid, kept);
    if (this.#pods.size > this.#limit) {
      const [oldest] = this.#pods.keys();
      if (oldest !== undefined) this.#pods.delete(oldest);
    }
  }

  /** What is known of a pod, by uid. */
  of(uid: string): PodJournal | undefined {
    const kept = this.#pods.get(uid);
    return kept === undefined ? undefined : { uid, pod: kept.pod, entries: [...kept.entries] };
  }

  /** Every pod that ever had this `namespace/name`, the latest first. */
  named(pod: string): PodJournal[] {
    return this.all().filter((one) => one.pod === pod);
  }

  /** All pods, the one with the latest entry first. */
  all(): PodJournal[] {
    return [...this.#pods].map(([uid, { pod, entries }]) => ({ uid, pod, entries: [...entries] })).reverse();
  }
}
