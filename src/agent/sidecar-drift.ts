// SPDX-License-Identifier: Apache-2.0
import { messageOf } from "../core/errors.ts";
import { type Pod, podKey } from "../core/pod.ts";
import type { NetnsHandle } from "../core/ports/netns.ts";
import { RepairPace } from "../core/repair-pace.ts";
import type { Parts } from "./parts.ts";
import type { Sidecars } from "./sidecars.ts";

/** As the redirection was at the last look. */
export type RedirectionWord = "redirected" | "foreign" | "absent" | "differs" | "outdated" | "unknown";

export interface RedirectionState {
  readonly word: RedirectionWord;
  /** What is wrong with it, empty when nothing is. */
  readonly detail: string;
  /** Wall clock, ms: of the first look that saw it so. */
  readonly since: number;
}

interface Known extends RedirectionState {
  /** Our rules were seen whole in this pod. */
  readonly ours: boolean;
  readonly pace: RepairPace;
}

const ABSENT = "nothing redirects its traffic into its sidecar: it talks past it, in the clear";

/**
 * Watches over the redirection of sidecar pods that run. What we have written and another program has changed is
 * written again, unless REPAIR_ENABLED is off; what was never ours is only reported. New settings of a pod that runs are left for its successor,
 * as with upstream.
 */
export class SidecarDrift {
  private readonly pods = new Map<string, Known>();

  constructor(
    private readonly parts: Parts,
    private readonly sidecars: Sidecars,
  ) {}

  /** As seen at the last look; undefined before the first one. */
  of(uid: string): RedirectionState | undefined {
    return this.pods.get(uid);
  }

  /** One look at a pod of which a process lives in this netns, and a repair where one is due. Never throws. */
  async look(pod: Pod, netns: NetnsHandle): Promise<void> {
    const known = this.pods.get(pod.uid);
    const pace = known?.pace ?? new RepairPace();
    const seen = this.see(pod, netns);
    const ours = known?.ours === true || seen.word === "redirected";
    const since = known?.word === seen.word ? known.since : Date.now();
    this.pods.set(pod.uid, { ...seen, since, ours, pace });
    const broken = seen.word === "differs" || (seen.word === "absent" && ours);
    const allowed = this.parts.config.repair.enabled;
    if (allowed && broken && pace.delay(this.parts.clock.now()) === 0) await this.repair(pod, netns, seen.detail, pace);
  }

  /** Forgets pods that are none of these. */
  keep(uids: ReadonlySet<string>): void {
    for (const uid of this.pods.keys()) if (!uids.has(uid)) this.pods.delete(uid);
  }

  private see(pod: Pod, netns: NetnsHandle): Pick<RedirectionState, "word" | "detail"> {
    try {
      const { mode, differences, outdated } = this.sidecars.observe(pod, netns);
      const detail = mode === "absent" ? ABSENT : differences.join("; ");
      return { word: outdated ? "outdated" : mode, detail };
    } catch (error) {
      // An annotation that was made wrong after the pod had started, or a netns that has gone.
      return { word: "unknown", detail: messageOf(error) };
    }
  }

  private async repair(pod: Pod, netns: NetnsHandle, found: string, pace: RepairPace): Promise<void> {
    const { drift, decisions, clock } = this.parts;
    pace.begins(clock.now());
    const name = podKey(pod);
    const began = performance.now();
    try {
      const { engine } = await this.sidecars.redirect(pod, pod.ips, netns, "drift");
      const milliseconds = performance.now() - began;
      pace.repaired();
      drift.repaired("redirection", name, found);
      const decision = { what: "repaired", engine, milliseconds, reason: "redirection", detail: found } as const;
      decisions.note({ uid: pod.uid, name }, decision, !pace.isNews);
      this.pods.set(pod.uid, { word: "redirected", detail: "", since: Date.now(), ours: true, pace });
    } catch (error) {
      const detail = `${found}; it can't be repaired: ${messageOf(error)}`;
      decisions.note({ uid: pod.uid, name }, { what: "pass failed", reason: "redirection", detail }, !pace.isNews);
      this.pods.set(pod.uid, { word: "differs", detail, since: Date.now(), ours: true, pace });
    }
  }
}
