// SPDX-License-Identifier: Apache-2.0
import { AgentError, messageOf } from "../core/errors.ts";
import { isTerminal, type Pod } from "../core/pod.ts";
import type { RedirectionState } from "../core/ports/cluster.ts";
import type { CaptureSpec } from "../core/ports/dataplane.ts";
import type { NetnsHandle } from "../core/ports/netns.ts";
import { Announcer, annotationOf } from "./announcer.ts";
import { captureSpec, eligibilityOf } from "./desire.ts";
import { Enroller, netnsNotFound } from "./enroll.ts";
import type { Enrollment } from "./enrollment.ts";
import { KnownPods } from "./known-pods.ts";
import { ManualCaptures } from "./manual-captures.ts";
import { NetnsLookup } from "./netns-lookup.ts";
import { OlderConnections } from "./older-connections.ts";
import type { Parts } from "./parts.ts";
import { KeyedQueue } from "./queue.ts";
import type { Roster } from "./roster.ts";
import { SharedCapture } from "./shared-capture.ts";
import { Unenroller } from "./unenroll.ts";
import { Vacancy } from "./vacancy.ts";
import type { VerdictTally } from "./verdict-tally.ts";

const CONCURRENCY = 16;
/** How often open proxied connections are counted while a pod drains, in ms. */
const DRAIN_POLL_MS = 100;
/** How long a pass waits for the API server to take an annotation, in ms. */
const ANNOTATE_MS = 3000;
/** Failed passes before a pod that was captured is announced as pending. */
const PATIENCE = 3;
const BACKOFF = { initialMs: 50, maxMs: 15_000, jitter: 0.2 };

/**
 * Compares what Kubernetes wants of a pod with what the kernel has, one pass at a time per pod, and
 * closes the difference. The watch, CNI requests, ztunnel and the sweep all end here.
 */
export class Reconciler {
  readonly queue: KeyedQueue;
  readonly lookup: NetnsLookup;
  readonly shared: SharedCapture;
  private readonly known: KnownPods;
  private readonly enroller: Enroller;
  private readonly unenroller: Unenroller;
  private readonly vacancy: Vacancy;
  private readonly announcer: Announcer;
  private readonly older: OlderConnections;
  readonly manual: ManualCaptures;

  constructor(
    private readonly parts: Parts,
    private readonly roster: Roster,
    private readonly verdicts: VerdictTally,
  ) {
    this.known = new KnownPods(parts, roster);
    this.lookup = new NetnsLookup(parts.finder, parts.clock, () => this.lookupsToCome());
    this.shared = new SharedCapture(parts, roster, (uid) => this.queue.trigger(uid));
    this.enroller = new Enroller(parts, () => this.shared.mend());
    this.unenroller = new Unenroller(parts);
    this.vacancy = new Vacancy(parts, this.lookup, (uid) => this.queue.trigger(uid));
    this.announcer = new Announcer(parts);
    this.older = new OlderConnections(parts);
    this.manual = new ManualCaptures(parts, roster, {
      enroller: this.enroller,
      unenroller: this.unenroller,
      queue: () => this.queue,
      watch: (enrollment) => this.watch(enrollment),
      forget: (uid) => verdicts.forget(uid),
    });
    this.queue = new KeyedQueue({
      concurrency: CONCURRENCY,
      backoff: BACKOFF,
      clock: parts.clock,
      work: (uid) => this.pass(uid),
      failed: (uid, error, retryMs) => this.passFailed(uid, error, retryMs),
    });
  }

  /** Pods that wait for their first pass: it will need their netns. */
  private *lookupsToCome(): Iterable<Pod> {
    for (const uid of this.queue.queued) {
      const pod = this.known.known(uid);
      if (pod !== undefined && this.roster.get(uid) === undefined && this.wanted(pod)) yield pod;
    }
  }

  private wanted(pod: Pod): boolean {
    return eligibilityOf(this.parts.config, this.parts.cluster, pod).verdict === "ambient";
  }

  private async pass(uid: string): Promise<void> {
    const known = this.roster.get(uid);
    if (known?.manual !== undefined) return this.manual.pass(known, known.manual);
    const pod = await this.known.current(uid);
    if (pod === undefined || isTerminal(pod)) return this.end(uid, pod, known);

    const { verdict, reason } = eligibilityOf(this.parts.config, this.parts.cluster, pod);
    if (verdict === "ambient") {
      const enrollment = this.roster.ensure(pod);
      try {
        await this.enroll(enrollment);
      } catch (error) {
        await this.notCaptured(enrollment, error);
        throw error;
      }
      return;
    }
    // A namespace that the cache does not have (yet, or any more) says nothing about its pods.
    if (reason === "namespace-unknown") return;
    if (known === undefined && annotationOf(pod) === null) return;
    const enrollment = this.roster.ensure(pod);
    try {
      await this.leave(enrollment);
    } catch (error) {
      this.announcer.failed(enrollment, error, "AmbientReleaseFailed");
      throw error;
    }
  }

  private async enroll(enrollment: Enrollment): Promise<void> {
    // Without an address there is nothing to verify; the next update of the pod brings it.
    if (enrollment.ips.length === 0) return;
    const netns = await this.netnsOf(enrollment);
    if (netns === undefined) return this.vacancy.note(enrollment, "no process of it is left");
    const { spec, problem } = this.specOf(enrollment);
    if (await this.vacancy.isGoing(enrollment, netns, spec)) return;
    try {
      await this.enroller.enroll(enrollment, netns, spec);
    } finally {
      // Whatever fails after capture: what is captured may be changed from here on.
      if (enrollment.wasCaptured) this.watch(enrollment);
    }
    enrollment.lost = false;
    if (problem !== undefined) throw problem;
    if (enrollment.servesCniAdd) {
      // The runtime waits for the capture, not for the API server: the annotation has a pass of its own.
      enrollment.inCniAdd = false;
      this.queue.trigger(enrollment.uid);
      return;
    }
    this.older.look(enrollment, netns, spec);
    await this.annotate(enrollment, "enabled");
    this.announcer.enrolled(enrollment);
  }

  /**
   * Any change in the pod's netns leads to a look, the first one at once. The sweep looks anyway. Of what changed
   * between this pass's look and the watch nobody tells.
   */
  private watch(enrollment: Enrollment): void {
    const { dataplane, clock, logger } = this.parts;
    try {
      const begun = enrollment.watchNetns((held) =>
        dataplane.watch(held, () => {
          const delay = enrollment.repairs.delay(clock.now());
          if (delay === 0) this.queue.nudge(enrollment.uid);
          else enrollment.lookAgain(() => clock.after(delay, () => this.queue.nudge(enrollment.uid)));
        }),
      );
      if (begun && !this.isCaptured(enrollment)) this.queue.nudge(enrollment.uid);
    } catch (error) {
      logger.warn("a pod's netns is not watched, only swept", { pod: enrollment.name, error: messageOf(error) });
    }
  }

  /**
   * What the pod's traffic must be. A pod that is captured already stays captured, as it was or without
   * its own settings, when one of its annotations has become invalid: `problem` is then thrown later.
   */
  private specOf(enrollment: Enrollment): { readonly spec: CaptureSpec; readonly problem?: unknown } {
    const { config, nameservers } = this.parts;
    try {
      const { spec, warnings } = captureSpec(config, enrollment.pod, enrollment.ips, nameservers);
      this.announcer.warn(enrollment, warnings);
      return { spec };
    } catch (problem) {
      if (!enrollment.wasCaptured) throw problem;
      const plain = { ...enrollment.pod, annotations: {} };
      const spec = enrollment.spec ?? captureSpec(config, plain, enrollment.ips, nameservers).spec;
      return { spec, problem };
    }
  }

  /** Bounded, since a pass holds a place that other pods wait for; a slow patch is tried again later. */
  private async annotate(enrollment: Enrollment, value: RedirectionState | null): Promise<void> {
    const { clock } = this.parts;
    await new Promise<void>((resolve, reject) => {
      const cancel = clock.after(ANNOTATE_MS, () => {
        reject(new AgentError("KUBE_SLOW", `annotating ${enrollment.name} took longer than ${ANNOTATE_MS} ms`));
      });
      this.announcer.annotate(enrollment, value).then(resolve, reject).finally(cancel);
    });
  }

  /** undefined: it is being deleted, and nothing of it is left. @throws AgentError NETNS_NOT_FOUND */
  private async netnsOf(enrollment: Enrollment): Promise<NetnsHandle | undefined> {
    if (enrollment.takeOffer()) {
      this.parts.decisions.note(enrollment, { what: "netns replaced", detail: `netns ${enrollment.netns?.id}` });
      enrollment.state = "pending";
    }
    if (enrollment.netns === undefined || enrollment.lost) {
      const found = await this.lookup.find(enrollment.pod);
      if (found === undefined && enrollment.pod.deleting) return undefined;
      if (found === undefined) throw netnsNotFound(enrollment);
      enrollment.adoptNetns(found);
    }
    if (enrollment.netns === undefined) throw netnsNotFound(enrollment);
    return enrollment.netns;
  }

  /** After a failed pass: a pod that is not captured must not be announced as captured. */
  private async notCaptured(enrollment: Enrollment, error: unknown): Promise<void> {
    this.announcer.failed(enrollment, error);
    if (this.isCaptured(enrollment)) return;
    // A captured pod that somebody disturbs is announced anew only when mending it fails again and again:
    // each change of the annotation is news to every peer.
    const disturbed = enrollment.wasCaptured && !enrollment.lost && this.queue.attempts(enrollment.uid) < PATIENCE;
    enrollment.abandonSandbox();
    if (disturbed) return;
    enrollment.state = "pending";
    await this.annotate(enrollment, "pending").catch((reason: unknown) => {
      this.parts.logger.warn("annotating a pending pod", { pod: enrollment.name, reason: messageOf(reason) });
    });
  }

  private isCaptured({ lost, netns, spec }: Enrollment): boolean {
    if (lost || netns === undefined || spec === undefined) return false;
    try {
      return this.parts.dataplane.observe(netns, spec).mode === "captured";
    } catch {
      // What can't be read can't be announced; the pass has failed with the reason already.
      return false;
    }
  }

  private async leave(enrollment: Enrollment): Promise<void> {
    enrollment.takeOffer();
    enrollment.touched ||= annotationOf(enrollment.pod) === "enabled";
    const netns = enrollment.netns ?? (await this.lookup.find(enrollment.pod));
    if (netns !== undefined) enrollment.adoptNetns(netns);
    // Adopted at start, and unlabelled since: its own settings don't matter any more.
    const plain = { ...enrollment.pod, annotations: {} };
    enrollment.spec ??= captureSpec(this.parts.config, plain, enrollment.ips, this.parts.nameservers).spec;
    this.verdicts.take(enrollment);
    const done = await this.unenroller.unenroll(enrollment, netns, (value) => this.annotate(enrollment, value));
    if (done) this.remove(enrollment.uid);
    else enrollment.lookAgain(() => this.parts.clock.after(DRAIN_POLL_MS, () => this.queue.trigger(enrollment.uid)));
  }

  private async end(uid: string, pod: Pod | undefined, known: Enrollment | undefined): Promise<void> {
    if (known === undefined) {
      if (pod === undefined || annotationOf(pod) === null) return;
      // Ended while no agent was running: only the annotation is left of it.
      await this.annotate(this.roster.ensure(pod), null);
    } else {
      // The terminal status may have lost its addresses: the record still has them.
      if (pod !== undefined && pod.ips.length > 0) known.pod = pod;
      this.verdicts.take(known);
      await this.unenroller.forget(known);
      if (pod !== undefined) await this.annotate(known, null);
    }
    this.remove(uid);
  }

  private remove(uid: string): void {
    this.verdicts.forget(uid);
    this.roster.remove(uid);
  }

  private passFailed(uid: string, error: unknown, retryMs: number): void {
    const enrollment = this.roster.get(uid);
    const code = error instanceof AgentError ? error.code : "UNKNOWN";
    this.parts.metrics.count("ambient_cni_retries_total", { code });
    this.parts.decisions.note(enrollment ?? { uid, name: uid }, {
      what: "pass failed",
      reason: code,
      detail: messageOf(error),
      nextTryMs: Math.round(retryMs),
    });
  }
}
