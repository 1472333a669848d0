// SPDX-License-Identifier: Apache-2.0
import type { NetnsHandle } from "../core/ports.ts";
import { netnsNotFound } from "./enroll.ts";
import type { Enrollment } from "./enrollment.ts";
import type { Parts } from "./parts.ts";

/** How often open proxied connections are counted while a pod drains, in ms. */
const DRAIN_POLL_MS = 100;

/** Takes pods out of the mesh again. */
export class Unenroller {
  constructor(private readonly parts: Parts) {}

  /**
   * A living pod whose label went: stop capturing, tell the cluster, let proxied connections end (up to
   * the drain time), then take it from ztunnel and remove our state. Nothing is left behind.
   * @param wantedAgain asked while draining; true ends the pass at once, the next one captures again.
   * @returns false when the pod is wanted again.
   */
  async unenroll(
    enrollment: Enrollment,
    netns: NetnsHandle | undefined,
    annotate: () => Promise<void>,
    wantedAgain: () => boolean,
  ): Promise<boolean> {
    const { dataplane, ztunnel, probes, config, logger } = this.parts;
    if (netns === undefined) throw netnsNotFound(enrollment);
    const began = performance.now();
    if (dataplane.present(netns)) {
      enrollment.state = "draining";
      if (enrollment.spec !== undefined) await dataplane.drain(netns, enrollment.spec);
      await annotate();
      if (!(await this.drained(netns, began + config.drainSeconds * 1000, wantedAgain))) return false;
    } else {
      await annotate();
    }
    await ztunnel.del(enrollment.uid);
    enrollment.ackedNetns = undefined;
    await dataplane.release(netns);
    await probes.revoke(enrollment.uid, enrollment.exemptIps);
    enrollment.exemptIps = [];
    logger.info("released", { pod: enrollment.name, ms: Math.round(performance.now() - began) });
    return true;
  }

  /** The pod is gone or has ended: nothing of it can be in use, its netns dies with it. */
  async forget(enrollment: Enrollment): Promise<void> {
    const { ztunnel, probes, logger } = this.parts;
    await probes.revoke(enrollment.uid, enrollment.exemptIps.length > 0 ? enrollment.exemptIps : enrollment.ips);
    enrollment.exemptIps = [];
    await ztunnel.del(enrollment.uid);
    enrollment.ackedNetns = undefined;
    logger.info("forgotten", { pod: enrollment.name, phase: enrollment.pod.phase });
  }

  private async drained(netns: NetnsHandle, deadline: number, wantedAgain: () => boolean): Promise<boolean> {
    for (;;) {
      if (wantedAgain()) return false;
      if (this.parts.dataplane.proxiedConnections(netns) === 0 || performance.now() >= deadline) return true;
      await new Promise<void>((resolve) => this.parts.clock.after(DRAIN_POLL_MS, resolve));
    }
  }
}
