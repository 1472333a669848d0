// SPDX-License-Identifier: Apache-2.0
import { AgentError } from "../core/errors.ts";
import { isTerminal, type Pod } from "../core/pod.ts";
import type { NetnsHandle } from "../core/ports.ts";
import { Announcer, annotationOf } from "./announcer.ts";
import { captureSpec, eligibilityOf } from "./desire.ts";
import { Enroller, netnsNotFound } from "./enroll.ts";
import type { Enrollment } from "./enrollment.ts";
import { NetnsLookup } from "./netns-lookup.ts";
import type { Parts } from "./parts.ts";
import { KeyedQueue } from "./queue.ts";
import type { Roster } from "./roster.ts";
import { Unenroller } from "./unenroll.ts";

const CONCURRENCY = 16;
const BACKOFF = { initialMs: 50, maxMs: 15_000, jitter: 0.2 };

/**
 * Compares what Kubernetes wants of a pod with what the kernel has, one pass at a time per pod, and
 * closes the difference. The watch, CNI requests, ztunnel and the sweep all end here.
 */
export class Reconciler {
  readonly queue: KeyedQueue;
  readonly lookup: NetnsLookup;
  private readonly enroller: Enroller;
  private readonly unenroller: Unenroller;
  private readonly announcer: Announcer;

  constructor(
    private readonly parts: Parts,
    private readonly roster: Roster,
    private readonly changed: () => void,
  ) {
    this.lookup = new NetnsLookup(parts.finder);
    this.enroller = new Enroller(parts);
    this.unenroller = new Unenroller(parts);
    this.announcer = new Announcer(parts);
    this.queue = new KeyedQueue({
      concurrency: CONCURRENCY,
      backoff: BACKOFF,
      clock: parts.clock,
      work: (uid) => this.pass(uid),
      failed: (uid, error, retryMs) => this.passFailed(uid, error, retryMs),
    });
  }

  /** The cache's pod, or the one that a CNI request read live before the cache has it. */
  private pod(uid: string): Pod | undefined {
    const enrollment = this.roster.get(uid);
    const admitted = enrollment !== undefined && Date.now() < enrollment.admittedUntil;
    return this.parts.cluster.pod(uid) ?? (admitted ? enrollment.pod : undefined);
  }

  private wanted(pod: Pod): boolean {
    return eligibilityOf(this.parts.config, this.parts.cluster, pod).verdict === "ambient";
  }

  private async pass(uid: string): Promise<void> {
    const pod = this.pod(uid);
    const known = this.roster.get(uid);
    if (pod === undefined || isTerminal(pod)) return this.end(uid, pod, known);

    const { verdict, reason } = eligibilityOf(this.parts.config, this.parts.cluster, pod);
    if (verdict === "ambient") {
      const enrollment = this.roster.ensure(pod);
      try {
        await this.enroll(enrollment);
      } catch (error) {
        await this.notCaptured(enrollment, error);
        throw error;
      } finally {
        this.changed();
      }
      return;
    }
    // A namespace that the cache does not have (yet, or any more) says nothing about its pods.
    if (reason === "namespace-unknown") return;
    if (known !== undefined || annotationOf(pod) !== null) await this.leave(this.roster.ensure(pod));
  }

  private async enroll(enrollment: Enrollment): Promise<void> {
    // Without an address there is nothing to verify; the next update of the pod brings it.
    if (enrollment.ips.length === 0) return;
    const netns = await this.netnsOf(enrollment);
    const { spec, warnings } = captureSpec(this.parts.config, enrollment.pod, enrollment.ips, this.parts.nameservers);
    if (JSON.stringify(warnings) !== JSON.stringify(enrollment.warnings)) {
      for (const warning of warnings) this.parts.logger.warn(warning, { pod: enrollment.name });
      enrollment.warnings = warnings;
    }
    await this.enroller.enroll(enrollment, netns, spec);
    enrollment.lost = false;
    await this.announcer.annotate(enrollment, "enabled");
    await this.announcer.enrolled(enrollment);
  }

  private async netnsOf(enrollment: Enrollment): Promise<NetnsHandle> {
    if (enrollment.takeOffer()) {
      this.parts.logger.info("the pod lives in another netns now", {
        pod: enrollment.name,
        netns: enrollment.netns?.id,
      });
      enrollment.state = "pending";
    }
    if (enrollment.netns === undefined || enrollment.lost) {
      const found = await this.lookup.find(enrollment.pod);
      if (found === undefined) throw netnsNotFound(enrollment);
      enrollment.adoptNetns(found);
    }
    if (enrollment.netns === undefined) throw netnsNotFound(enrollment);
    return enrollment.netns;
  }

  /** After a failed pass: a pod that is not captured must not be announced as captured. */
  private async notCaptured(enrollment: Enrollment, error: unknown): Promise<void> {
    const { netns, spec } = enrollment;
    const captured =
      !enrollment.lost &&
      netns !== undefined &&
      spec !== undefined &&
      this.parts.dataplane.observe(netns, spec).mode === "captured";
    if (!captured) {
      enrollment.state = "pending";
      enrollment.abandonSandbox();
      await this.announcer.annotate(enrollment, "pending").catch((reason: unknown) => {
        this.parts.logger.warn("annotating a pending pod", { pod: enrollment.name, reason: String(reason) });
      });
    }
    await this.announcer.failed(enrollment, error);
  }

  private async leave(enrollment: Enrollment): Promise<void> {
    enrollment.takeOffer();
    const netns = enrollment.netns ?? (await this.lookup.find(enrollment.pod));
    if (netns !== undefined) enrollment.adoptNetns(netns);
    const done = await this.unenroller.unenroll(
      enrollment,
      netns,
      () => this.announcer.annotate(enrollment, null),
      () => {
        const pod = this.parts.cluster.pod(enrollment.uid);
        return pod !== undefined && !isTerminal(pod) && this.wanted(pod);
      },
    );
    if (done) this.roster.remove(enrollment.uid);
    else this.queue.trigger(enrollment.uid);
    this.changed();
  }

  private async end(uid: string, pod: Pod | undefined, known: Enrollment | undefined): Promise<void> {
    if (known === undefined) {
      if (pod === undefined || annotationOf(pod) === null) return;
      // Ended while no agent was running: only the annotation is left of it.
      await this.announcer.annotate(this.roster.ensure(pod), null);
    } else {
      // The terminal status may have lost its addresses: the record still has them.
      if (pod !== undefined && pod.ips.length > 0) known.pod = pod;
      await this.unenroller.forget(known);
      if (pod !== undefined) await this.announcer.annotate(known, null);
    }
    this.roster.remove(uid);
    this.changed();
  }

  private passFailed(uid: string, error: unknown, retryMs: number): void {
    const enrollment = this.roster.get(uid);
    const code = error instanceof AgentError ? error.code : "UNKNOWN";
    this.parts.metrics.count("ambient_cni_retries_total", { code });
    const fields = {
      pod: enrollment?.name ?? uid,
      code,
      error: error instanceof Error ? error.message : String(error),
      retryMs: Math.round(retryMs),
    };
    // The first failures are news, the hundredth is not.
    if (this.queue.attempts(uid) <= 3) this.parts.logger.warn("reconciling failed; trying again", fields);
    else this.parts.logger.debug("reconciling failed; trying again", fields);
  }
}
