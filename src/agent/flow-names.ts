// SPDX-License-Identifier: Apache-2.0
import { podKey } from "../core/pod.ts";
import type { NetnsHandle } from "../core/ports/netns.ts";
import type { Parts } from "./parts.ts";
import type { Roster } from "./roster.ts";

export interface FlowPod {
  readonly uid: string;
  readonly name: string;
}

/** A pod may be captured at any time; who asks often is told what was true so long ago (ms). */
const FRESH_MS = 500;
/** The same about a netns that was nobody's then: it may have been captured since. */
const UNKNOWN_MS = 40;

/** Whose a netns and an address is, at the time of the question. */
export class FlowNames {
  #byNetns = new Map<bigint, FlowPod>();
  #byAddress = new Map<string, string>();
  #takenAt = Number.NEGATIVE_INFINITY;

  constructor(
    private readonly parts: Parts,
    private readonly roster: Roster,
    private readonly keyOf: (netns: NetnsHandle) => bigint,
  ) {}

  ofNetns(key: bigint): FlowPod | undefined {
    this.#refresh(this.#byNetns.has(key) ? FRESH_MS : UNKNOWN_MS);
    return this.#byNetns.get(key);
  }

  /** `namespace/name` of a pod of this node. */
  ofAddress(ip: string): string | undefined {
    this.#refresh(FRESH_MS);
    return this.#byAddress.get(ip);
  }

  #refresh(freshMs: number): void {
    const { clock, cluster } = this.parts;
    const now = clock.now();
    if (now - this.#takenAt < freshMs) return;
    this.#takenAt = now;
    const before = this.#byNetns;
    this.#byNetns = new Map();
    this.#byAddress = new Map();
    for (const { netns, uid, name } of this.roster.all())
      if (netns !== undefined) this.#byNetns.set(this.keyOf(netns), { uid, name });
    // One that has been let go a moment ago: its last flows are told now. Netns cookies are never used again.
    for (const [key, pod] of before)
      if (!this.#byNetns.has(key) && cluster.pod(pod.uid) !== undefined) this.#byNetns.set(key, pod);
    for (const pod of cluster.pods())
      if (!pod.hostNetwork) for (const ip of pod.ips) this.#byAddress.set(ip, podKey(pod));
  }
}
