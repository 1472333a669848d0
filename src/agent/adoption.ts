// SPDX-License-Identifier: Apache-2.0
import { isTerminal, type Pod } from "../core/pod.ts";
import type { NetnsHandle } from "../core/ports/netns.ts";
import type { ExemptPod } from "../core/ports/probes.ts";
import { annotationOf } from "./announcer.ts";
import { captureSpec, eligibilityOf, exemptibleIps } from "./desire.ts";
import type { ManualKeeping } from "./manual-keeping.ts";
import type { Parts } from "./parts.ts";
import type { Roster } from "./roster.ts";

/** At the start: the kernel is the truth, and what it shows is taken over as it is. */
export class Adoption {
  constructor(
    private readonly parts: Parts,
    private readonly roster: Roster,
    private readonly manual: ManualKeeping,
  ) {}

  /** Rebuilds the roster from the kernel: one pass over /proc, one look into each netns. */
  async adopt(): Promise<void> {
    const { cluster, finder } = this.parts;
    const candidates = [...cluster.pods()].filter((pod) => !pod.hostNetwork && !isTerminal(pod));
    const found = await finder.find(candidates);
    try {
      await this.take(candidates, found);
    } finally {
      for (const [uid, handle] of found) if (this.roster.get(uid)?.netns !== handle) handle.close();
    }
  }

  private async take(candidates: readonly Pod[], found: ReadonlyMap<string, NetnsHandle>): Promise<void> {
    const { cluster, dataplane, probes, logger, config } = this.parts;
    const owners = new Map<string, ExemptPod & { readonly netns: NetnsHandle }>();
    let adopted = 0;
    for (const pod of candidates) {
      const handle = found.get(pod.uid);
      const ambient = eligibilityOf(config, cluster, pod).verdict === "ambient";
      if (handle === undefined) {
        // Not found, but ztunnel may still run its proxy: `keep` it until the sweep knows more.
        if (ambient && annotationOf(pod) === "enabled") {
          const enrollment = this.roster.ensure(pod);
          enrollment.annotation = "enabled";
          enrollment.touched = true;
        }
        continue;
      }
      const ours = dataplane.present(handle);
      if (!ambient && !ours) continue;
      const enrollment = this.roster.ensure(pod);
      enrollment.annotation = annotationOf(pod);
      enrollment.adoptNetns(handle);
      // Announced as captured: then it is captured before anything else, with or without a ztunnel.
      if (enrollment.annotation === "enabled") enrollment.capturedNetns = handle.id;
      if (!ours) {
        const unannounced = enrollment.annotation === null && pod.phase === "Running";
        enrollment.late = ambient && unannounced && this.startedUnseen(pod);
        continue;
      }
      adopted += 1;
      const exempt = exemptibleIps(config, pod.ips);
      // Reconciled below, or else the agent does not start.
      enrollment.exemptIps = exempt;
      enrollment.exempt = true;
      this.restoreSpec(pod);
      // Captured by istio-cni's rules until its first pass: they let probes pass by the address that they wear.
      const foreign = enrollment.engine === undefined && enrollment.capturedNetns !== undefined;
      const engine = foreign ? "nftables" : (enrollment.engine ?? dataplane.engine);
      owners.set(pod.uid, { uid: pod.uid, ips: exempt, engine, netns: handle });
    }
    await this.manual.adopt(owners);
    await probes.reconcile(owners);
    logger.info("kernel state adopted", { pods: candidates.length, found: found.size, captured: adopted });
  }

  private restoreSpec(pod: Pod): void {
    const enrollment = this.roster.ensure(pod);
    if (enrollment.netns === undefined) return;
    try {
      const { spec } = captureSpec(this.parts.config, pod, pod.ips, this.parts.nameservers);
      enrollment.spec = spec;
      const { mode, engine } = this.parts.dataplane.observe(enrollment.netns, spec);
      enrollment.engine = engine;
      // Routes alone, left by an agent that died before it captured, are no capture.
      if (mode !== "absent") enrollment.capturedNetns = enrollment.netns.id;
      if (mode === "captured") {
        enrollment.state = "enrolled";
        enrollment.enrolledAt = Date.now();
        enrollment.enrolledSince = this.parts.clock.now();
        enrollment.adopted = true;
        this.parts.decisions.note(enrollment, { what: "adopted", engine });
      }
    } catch (error) {
      this.parts.logger.warn("adopting a pod", { pod: enrollment.name, error: String(error) });
    }
  }

  /** True for a pod that was made while no agent was there: its ADD should have been refused. */
  private startedUnseen({ createdAt }: Pod): boolean {
    const { lastAliveAt } = this.parts;
    return createdAt !== undefined && lastAliveAt !== undefined && createdAt > lastAliveAt;
  }
}
