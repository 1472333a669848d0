// SPDX-License-Identifier: Apache-2.0
import { codeOf, messageOf } from "../core/errors.ts";
import { isTerminal, type Pod } from "../core/pod.ts";
import type { NetnsHandle } from "../core/ports/netns.ts";
import { annotationOf } from "./announcer.ts";
import { eligibilityOf } from "./desire.ts";
import type { Parts } from "./parts.ts";
import type { Reconciler } from "./reconciler.ts";
import type { Roster } from "./roster.ts";
import type { SidecarDrift } from "./sidecar-drift.ts";

export interface PatrolOptions {
  /** Between two looks at what all pods share, in ms. */
  readonly periodMs: number;
  /** Pods are looked at every so many of these. */
  readonly podsEvery: number;
}

/**
 * Looks where the queue never comes: at what all pods of the node share, at sidecar pods, and at pods outside
 * the mesh, which must carry nothing of ours. No watch tells of these; the second look of pods in the mesh is the
 * sweep's.
 */
export class Patrol {
  private cancel: (() => void) | undefined;
  private stopped = false;
  private turn = 0;
  private looking = false;
  private running: Promise<void> = Promise.resolve();

  /** `ambient`: whether captured pods are worked on at all. */
  constructor(
    private readonly parts: Parts,
    private readonly roster: Roster,
    private readonly reconciler: Reconciler,
    private readonly sidecars: SidecarDrift,
    private readonly ambient: () => boolean,
    private readonly options: PatrolOptions,
  ) {}

  start(): void {
    this.cancel = this.parts.clock.after(this.options.periodMs, () => {
      this.start();
      this.turn += 1;
      // Sidecar pods that are repaired take their time: what all pods are captured by does not wait for them.
      const alsoPods = this.turn % this.options.podsEvery === 0 && !this.looking;
      if (!alsoPods) return this.shared();
      this.looking = true;
      this.running = this.run()
        .catch((error: unknown) => this.parts.logger.error("patrol failed", { error: messageOf(error) }))
        .finally(() => {
          this.looking = false;
        });
    });
  }

  /** Resolves when no look is under way, or when `deadlineMs` is over. */
  async stop(deadlineMs: number): Promise<void> {
    this.stopped = true;
    this.cancel?.();
    await new Promise<void>((resolve) => {
      const cancel = this.parts.clock.after(deadlineMs, resolve);
      void this.running.finally(() => {
        cancel();
        resolve();
      });
    });
  }

  /** One turn of everything, now. */
  async run(): Promise<void> {
    this.shared();
    await this.pods();
  }

  private shared(): void {
    if (this.ambient()) this.reconciler.shared.mend();
  }

  private async pods(): Promise<void> {
    const wanted = [...this.parts.cluster.pods()].filter((pod) => this.concerns(pod));
    this.sidecars.keep(new Set(wanted.map(({ uid }) => uid)));
    if (wanted.length === 0) return;
    const found = await this.find(wanted);
    for (const { uid } of wanted) {
      const netns = found.get(uid);
      if (netns === undefined) continue;
      // Time has passed: it may have become a pod of the mesh, whose netns is the queue's affair.
      const pod = this.parts.cluster.pod(uid);
      const kept = pod !== undefined && !this.stopped && this.concerns(pod) && (await this.look(pod, netns));
      if (!kept) netns.close();
      // 200 pods are some milliseconds: others have their turn in between.
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  private async find(wanted: readonly Pod[]): Promise<Map<string, NetnsHandle>> {
    try {
      return await this.parts.finder.find(wanted);
    } catch (error) {
      // A container without the node's /proc, as istio-cni's chart makes it: the agent has said so at its start.
      if (codeOf(error) === "PROC_UNREADABLE") return new Map();
      throw error;
    }
  }

  /** Runs outside the mesh, and nobody works on it. */
  private concerns(pod: Pod): boolean {
    if (pod.phase !== "Running" || isTerminal(pod) || pod.hostNetwork || pod.ips.length === 0) return false;
    const { verdict, reason } = eligibilityOf(this.parts.config, this.parts.cluster, pod);
    return verdict !== "ambient" && reason !== "namespace-unknown" && this.roster.get(pod.uid) === undefined;
  }

  /** Returns whether the netns is somebody else's to close. */
  private async look(pod: Pod, netns: NetnsHandle): Promise<boolean> {
    const { config, cluster, dataplane, logger } = this.parts;
    if (eligibilityOf(config, cluster, pod).verdict === "sidecar") {
      await this.sidecars.look(pod, netns);
      if (this.stopped || !this.concerns(pod)) return false;
    }
    try {
      if (!this.ambient() || !dataplane.present(netns)) return false;
    } catch (error) {
      logger.debug("a pod's netns can't be read", { uid: pod.uid, error: messageOf(error) });
      return false;
    }
    // Whose claim counts is found out by the sweep.
    for (const { manual, netns: held } of this.roster.all()) {
      if (manual !== undefined && held?.id === netns.id) return false;
    }
    this.release(pod, netns);
    return true;
  }

  /** By the same way as a pod that has lost its label. */
  private release(pod: Pod, netns: NetnsHandle): void {
    const { decisions, drift } = this.parts;
    const enrollment = this.roster.ensure(pod);
    enrollment.annotation = annotationOf(pod);
    enrollment.adoptNetns(netns);
    enrollment.capturedNetns = netns.id;
    const detail = "it does not belong to the mesh, and carries capture; it is released";
    decisions.note(enrollment, { what: "found captured", detail });
    drift.repaired("unwanted", enrollment.name, detail);
    this.reconciler.queue.trigger(pod.uid);
  }
}
