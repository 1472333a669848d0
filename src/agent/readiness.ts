// SPDX-License-Identifier: Apache-2.0
// Is this node as it should be? istiod takes its taint off a node, and a rollout goes on to the next one, when
// the agent says so.
import type { Clock } from "../core/clock.ts";
import type { Logger } from "../core/ports/telemetry.ts";
import { SANDBOX_GONE } from "../core/report/pods.ts";
import type { PodStatus } from "./census.ts";

/**
 * Reasons outside this agent: ztunnel is never waited for, and what a pod's own author has made impossible must
 * not hold up the node.
 */
const NOT_OURS: ReadonlySet<string> = new Set([
  "NO_ZTUNNEL",
  "ZTUNNEL_REFUSED",
  "ZTUNNEL_TIMEOUT",
  "ANNOTATION_INVALID",
  "POD_NOT_CAPTURABLE",
  "ADDRESS_LOST",
  SANDBOX_GONE,
]);
/** Once ready, a pod counts after this, in ms: it joins the mesh, and is captured in a moment. */
const GRACE_MS = 5_000;
/** What could not be captured in this time, in ms, fails for a reason of its own. */
const HOLD_MS = 60_000;
const NAMED = 20;

export interface ReadinessParts {
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Judges what the agent knows of its pods, at the moment when it is asked. */
export class Readiness {
  /** When a pod was first seen uncaptured, on the clock. */
  readonly #since = new Map<string, number>();
  readonly #told = new Set<string>();
  #readyBefore = false;

  constructor(private readonly parts: ReadinessParts) {}

  /**
   * What is missing, a sentence each; empty = ready. `absent`: what of the agent itself is missing; with any of
   * that, pods say nothing.
   */
  missing(absent: readonly string[], pods: readonly PodStatus[]): string[] {
    if (absent.length > 0) return [...absent];
    const holding = this.#holding(pods);
    this.#readyBefore ||= holding.length === 0;
    const named = holding.slice(0, NAMED).map(({ pod, reason }) => `pod ${pod}: ${reason}`);
    if (holding.length > NAMED) named.push(`and ${holding.length - NAMED} more pods`);
    return named;
  }

  #holding(pods: readonly PodStatus[]): PodStatus[] {
    const now = this.parts.clock.now();
    const uncaptured = pods.filter(isUncaptured).filter(({ reason }) => !NOT_OURS.has(reason));
    const uids = new Set(uncaptured.map(({ uid }) => uid));
    for (const uid of this.#since.keys()) if (!uids.has(uid)) this.#since.delete(uid);
    for (const uid of uids) if (!this.#since.has(uid)) this.#since.set(uid, now);
    const age = ({ uid }: PodStatus) => now - (this.#since.get(uid) ?? now);
    const late = uncaptured.filter((pod) => !this.#readyBefore || age(pod) >= GRACE_MS);
    // Where pods of several owners fail and none is captured, it is the node.
    const spaces = new Set(late.map(({ pod }) => pod.split("/")[0]));
    if (spaces.size > 1 && !pods.some(({ captured }) => captured)) return late;
    const given = late.filter((pod) => age(pod) >= HOLD_MS);
    this.#tell(given);
    return late.filter((pod) => !given.includes(pod));
  }

  #tell(given: readonly PodStatus[]): void {
    const uids = new Set(given.map(({ uid }) => uid));
    for (const uid of this.#told) if (!uids.has(uid)) this.#told.delete(uid);
    for (const { uid, pod, reason } of given) {
      if (this.#told.has(uid)) continue;
      this.#told.add(uid);
      this.parts.logger.warn("a pod that can't be captured does not hold up the node any longer", { pod, reason });
    }
  }
}

/** Belongs to the mesh and runs, outside it. A pod that leaves the mesh does not count, nor one without an address. */
function isUncaptured({ state, captured, ips, phase }: PodStatus): boolean {
  return (state === "failing" || state === "pending") && !captured && ips.length > 0 && phase === "Running";
}
