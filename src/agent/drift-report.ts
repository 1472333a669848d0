// SPDX-License-Identifier: Apache-2.0
import type { Drift, DriftKind } from "../core/ports/drift.ts";
import { type PodReport, podTitle } from "../core/report/pods.ts";
import type { ComponentReport, StatusReport } from "../core/report/status.ts";
import { counted } from "../core/report/words.ts";

/** A pod that is repaired so often without a quiet minute is somebody's target. */
export const FIGHT = 5;

export interface Fight {
  readonly pod: string;
  readonly times: number;
}

/** What is the node's own, in words. */
const NODES: Partial<Record<DriftKind, string>> = {
  hooks: "what all pods are captured by",
  probe_hooks: "what lets probes into captured pods",
};

const UNREPAIRED: ReadonlySet<string> = new Set(["NOT_REDIRECTED", "REDIRECTION_DIFFERS"]);

export function driftReport({ counts, last, broken }: Drift): NonNullable<StatusReport["drift"]> {
  return {
    repaired: total(counts),
    kinds: Object.fromEntries(counts),
    broken: Object.fromEntries(broken),
    last:
      last === undefined
        ? null
        : { at: new Date(last.at).toISOString(), what: last.what, pod: last.pod ?? null, detail: last.detail },
  };
}

/** Repaired drift is news, no trouble; what can't be repaired, or has to be again and again, is. */
export function driftComponent(drift: Drift, fights: readonly Fight[], pods: readonly PodReport[]): ComponentReport {
  const bare = pods.filter(({ failure }) => failure !== null && UNREPAIRED.has(failure.code)).map(podTitle);
  const troubles = [
    ...(bare.length === 0 ? [] : [`${counted(bare.length, "sidecar pod")} without redirection: ${named(bare)}`]),
    ...fights.map(({ pod, times }) => `${pod} repaired ${times} times in a row: somebody keeps changing it`),
  ];
  // By these all pods are captured, or reached by probes.
  const broken = [...drift.broken].map(([kind, why]) => `${NODES[kind] ?? kind} can't be repaired: ${why}`);
  const text = [...broken, repairs(drift), ...troubles].join("; ");
  const verdict = broken.length > 0 ? "error" : troubles.length > 0 ? "warn" : "ok";
  return { name: "drift", verdict, text };
}

function repairs({ counts, last }: Drift): string {
  if (last === undefined) return "nothing had to be repaired since the start";
  const seconds = Math.max(0, Math.round((Date.now() - last.at) / 1000));
  const kinds = [...counts].map(([kind, count]) => `${kind} ${count}`).join(", ");
  return `${total(counts)} repaired since the start (${kinds}), last ${seconds}s ago: ${last.pod ?? "the node"}: ${shortened(last.detail)}`;
}

/** One line of `status`; the whole text is in JSON and in the log. */
const MAX_DETAIL = 100;
const shortened = (text: string) => (text.length <= MAX_DETAIL ? text : `${text.slice(0, MAX_DETAIL - 3)}...`);

const total = (counts: Drift["counts"]) => [...counts.values()].reduce((sum, count) => sum + count, 0);

const NAMED = 3;

function named(names: readonly string[]): string {
  const more = names.length - NAMED;
  return names.slice(0, NAMED).join(", ") + (more > 0 ? ` and ${more} more` : "");
}
