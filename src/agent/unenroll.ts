// SPDX-License-Identifier: Apache-2.0
import { codeOf, messageOf } from "../core/errors.ts";
import type { RedirectionState } from "../core/ports/cluster.ts";
import type { NetnsHandle } from "../core/ports/netns.ts";
import { netnsNotFound } from "./enroll.ts";
import type { Enrollment } from "./enrollment.ts";
import { Exemption } from "./exemption.ts";
import type { Parts } from "./parts.ts";

/** Takes pods out of the mesh again. */
export class Unenroller {
  private readonly exemption: Exemption;

  constructor(private readonly parts: Parts) {
    this.exemption = new Exemption(parts);
  }

  /**
   * A living pod whose label went: stop capturing, tell the cluster, let proxied connections end (up to
   * the drain time), then take it from ztunnel and remove our state. Nothing is left behind.
   * @returns false while connections are still open: come back soon. Waiting here would hold a place in
   * the queue that other pods need.
   */
  async unenroll(
    enrollment: Enrollment,
    netns: NetnsHandle | undefined,
    annotate: (value: RedirectionState | null) => Promise<void>,
  ): Promise<boolean> {
    const { dataplane, ztunnel, config, clock, decisions } = this.parts;
    // With ambient off the annotation alone tells the next agent that there is something left to do.
    const leaving = config.ambientEnabled ? null : "pending";
    if (netns === undefined) {
      // Whatever is in its netns, peers must not go on believing that the pod speaks HBONE.
      await annotate(leaving);
      if (enrollment.touched && !enrollment.pod.hostNetwork) throw netnsNotFound(enrollment);
      // Also what ztunnel was told to keep.
      await this.forgetAtZtunnel(enrollment, ztunnel.del(enrollment.uid));
      await annotate(null);
      return true;
    }
    if (dataplane.present(netns)) {
      if (enrollment.drainUntil === undefined) {
        if (enrollment.spec !== undefined) await dataplane.drain(netns, enrollment.spec);
        enrollment.state = "draining";
        enrollment.drainUntil = clock.now() + config.drainSeconds * 1000;
        decisions.note(enrollment, { what: "draining", engine: enrollment.engine });
      }
      await annotate(leaving);
      if (dataplane.proxiedConnections(netns) > 0 && clock.now() < enrollment.drainUntil) return false;
    } else {
      await annotate(leaving);
    }
    await this.forgetAtZtunnel(enrollment, ztunnel.del(enrollment.uid));
    await dataplane.release(netns);
    enrollment.capturedNetns = undefined;
    await this.exemption.revoke(enrollment);
    await annotate(null);
    decisions.note(enrollment, { what: "released", engine: enrollment.engine });
    return true;
  }

  /**
   * The pod is gone or has ended: nothing of it can be in use, its netns dies with it. Everything is
   * tried before a failure is thrown, and no snapshot names the pod from here on.
   */
  async forget(enrollment: Enrollment): Promise<void> {
    const { ztunnel, decisions } = this.parts;
    enrollment.dropNetns();
    enrollment.forgotten = true;
    if (enrollment.exemptIps.length === 0) enrollment.exemptIps = enrollment.ips;
    const outcomes = await Promise.allSettled([
      this.forgetAtZtunnel(enrollment, ztunnel.del(enrollment.uid)),
      this.exemption.revoke(enrollment),
    ]);
    for (const outcome of outcomes) if (outcome.status === "rejected") throw outcome.reason;
    decisions.note(enrollment, { what: "forgotten", detail: `phase ${enrollment.pod.phase}` });
  }

  /** A ztunnel that refuses to forget a pod has said its last word: asking for ever helps nobody. */
  private async forgetAtZtunnel(enrollment: Enrollment, del: Promise<void>): Promise<void> {
    try {
      await del;
    } catch (error) {
      if (codeOf(error) !== "ZTUNNEL_REFUSED") throw error;
      this.parts.logger.error("ztunnel refused to forget a pod", { pod: enrollment.name, error: messageOf(error) });
    }
    enrollment.ackedNetns = undefined;
  }
}
