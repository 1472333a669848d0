// SPDX-License-Identifier: Apache-2.0
import type { Stop } from "../core/disposable.ts";
import { sidecarOf } from "../core/eligibility.ts";
import { AgentError, codeOf, messageOf } from "../core/errors.ts";
import { type Pod, podKey } from "../core/pod.ts";
import { isBroken, type RepairKind, repairKind } from "../sidecar/repair.ts";
import type { Parts } from "./parts.ts";
import { KeyedQueue } from "./queue.ts";
import type { Sidecars } from "./sidecars.ts";

const CONCURRENCY = 4;
const BACKOFF = { initialMs: 1000, maxMs: 60_000, jitter: 0.2 };
/** As upstream: afterwards only news of the pod begins anew. */
const MAX_ATTEMPTS = 5;
/** Who writes these Events, as upstream calls itself. */
const REPORTER = "cni-repair";

type Result = "success" | "skip" | "fail";

const EVENTS: Readonly<Record<RepairKind, { readonly reason: string; readonly done: string; readonly verb: string }>> =
  {
    repair: {
      reason: "RepairBrokenPod",
      done: "the redirection into the sidecar was missing and has been written; the pod goes on when its check runs again",
      verb: "be redirected into its sidecar",
    },
    delete: {
      reason: "DeleteBrokenPod",
      done: "the pod has started without the redirection into its sidecar, and has been deleted",
      verb: "be deleted",
    },
    label: {
      reason: "LabelBrokenPod",
      done: "the pod has started without the redirection into its sidecar, and has been labelled",
      verb: "be labelled",
    },
  };

/**
 * Takes care of sidecar pods that have started without their redirection, while no agent was there or before
 * there was one: their own check holds them back, and says so by its exit status. Each pod once.
 */
export class Repair {
  private readonly kind: RepairKind | undefined;
  private readonly queue: KeyedQueue;
  /** Uids that need nothing more. */
  private readonly done = new Set<string>();
  private stopListening: Stop = () => undefined;

  constructor(
    private readonly parts: Parts,
    private readonly sidecars: Sidecars,
  ) {
    this.kind = repairKind(parts.config.repair);
    this.queue = new KeyedQueue({
      concurrency: CONCURRENCY,
      backoff: BACKOFF,
      clock: parts.clock,
      work: (uid) => this.pass(uid),
      failed: (uid, error, retryMs) => this.failed(uid, error, retryMs),
    });
  }

  /** Begins with the pods that are in the cache. */
  start(): void {
    if (this.kind === undefined) return;
    this.stopListening = this.parts.cluster.onPod(({ kind, pod }) => {
      if (kind === "delete") this.done.delete(pod.uid);
      else this.consider(pod);
    });
    for (const pod of this.parts.cluster.pods()) this.consider(pod);
    this.queue.start();
  }

  async stop(deadlineMs: number): Promise<void> {
    this.stopListening();
    await this.queue.stop(deadlineMs);
  }

  private consider(pod: Pod): void {
    if (!this.done.has(pod.uid) && isBroken(pod, this.parts.config.repair)) this.queue.trigger(pod.uid);
  }

  private async pass(uid: string): Promise<void> {
    const { cluster, config, metrics } = this.parts;
    const pod = cluster.pod(uid);
    // It may have become healthy while it waited.
    if (this.kind === undefined || pod === undefined || this.done.has(uid) || !isBroken(pod, config.repair)) return;
    if (this.queue.attempts(uid) >= MAX_ATTEMPTS) return;
    const count = (result: Result) =>
      metrics.count("istio_cni_repair_pods_repaired_total", { type: this.kind ?? "", result });
    const { reason, done, verb } = EVENTS[this.kind];
    try {
      const result = await this.mend(pod, this.kind);
      count(result);
      if (result === "success") void cluster.event(pod, { type: "Warning", reason, message: done, reporter: REPORTER });
    } catch (error) {
      count("fail");
      const message = `the pod has started without the redirection into its sidecar, and can't ${verb}: ${messageOf(error)}`;
      void cluster.event(pod, { type: "Warning", reason, message, reporter: REPORTER });
      // Nothing but a new pod can change what its own author has written.
      if (codeOf(error) !== "ANNOTATION_INVALID") throw error;
      this.done.add(uid);
    }
  }

  private async mend(pod: Pod, kind: RepairKind): Promise<Exclude<Result, "fail">> {
    switch (kind) {
      case "repair":
        return this.redirect(pod);
      case "delete":
        return this.remove(pod);
      case "label":
        return this.label(pod);
    }
  }

  private async redirect(pod: Pod): Promise<Exclude<Result, "fail">> {
    const { finder } = this.parts;
    // Also in excluded namespaces, as upstream: only what the pod itself is counts.
    if (sidecarOf(pod)?.verdict !== "sidecar") {
      this.done.add(pod.uid);
      return "skip";
    }
    const found = await finder.find([pod]);
    const netns = found.get(pod.uid);
    if (netns === undefined) {
      throw new AgentError(
        "NETNS_NOT_FOUND",
        `no process of pod ${podKey(pod)} lives in a netns that carries ${pod.ips.join(", ")}`,
        "check that the node's /proc is mounted",
      );
    }
    try {
      const needed = this.sidecars.needsRedirection(pod, netns);
      if (needed) await this.sidecars.redirect(pod, pod.ips, netns, "repair");
      this.done.add(pod.uid);
      return needed ? "success" : "skip";
    } finally {
      netns.close();
    }
  }

  private async remove(pod: Pod): Promise<Exclude<Result, "fail">> {
    const outcome = await this.parts.cluster.deleteBrokenPod(pod);
    // With news about it the pod is looked at again.
    if (outcome === "changed") return "skip";
    this.done.add(pod.uid);
    return outcome === "deleted" ? "success" : "skip";
  }

  private async label(pod: Pod): Promise<Exclude<Result, "fail">> {
    const { labelKey, labelValue } = this.parts.config.repair;
    const labelled = Object.hasOwn(pod.labels, labelKey);
    const outcome = labelled ? "gone" : await this.parts.cluster.labelBrokenPod(pod, labelKey, labelValue);
    if (outcome === "changed") return "skip";
    this.done.add(pod.uid);
    return outcome === "patched" ? "success" : "skip";
  }

  private failed(uid: string, error: unknown, retryMs: number): void {
    const pod = this.parts.cluster.pod(uid);
    this.parts.logger.warn("a sidecar pod without redirection can't be repaired", {
      pod: pod === undefined ? uid : podKey(pod),
      repair: this.kind,
      error: messageOf(error),
      retryMs: Math.round(retryMs),
    });
  }
}
