// SPDX-License-Identifier: Apache-2.0
import { sidecarOf } from "../core/eligibility.ts";
import { codeOf, messageOf } from "../core/errors.ts";
import { limiter } from "../core/limiter.ts";
import { type Pod, podKey } from "../core/pod.ts";
import type { KernelFact } from "../core/ports/dataplane.ts";
import type { NetnsHandle } from "../core/ports/netns.ts";
import type { Proof } from "../core/ports/proof.ts";
import type { RedirectedPod, RedirectionObservation } from "../core/ports/sidecar.ts";
import type { Redirection } from "../core/redirection.ts";
import { planRedirection } from "../sidecar/plan.ts";
import { sidecarSettings } from "../sidecar/settings.ts";
import { describeSidecar } from "../sidecar/words.ts";
import type { Parts } from "./parts.ts";

/** Pods whose rules are written at the same time. */
const CONCURRENCY = 16;

/** What of the agent's parts a redirection needs. */
export type SidecarParts = Pick<Parts, "config" | "cluster" | "sidecars" | "decisions" | "logger" | "metrics">;

/** Writes the redirection of sidecar pods: when their sandbox is made, and once more where that was missed. */
export class Sidecars {
  private readonly limited = limiter(CONCURRENCY);

  constructor(private readonly parts: SidecarParts) {}

  /** At the start of the agent, where the node has sidecar pods or nothing else to do. */
  async warm(): Promise<void> {
    const { config, cluster, sidecars } = this.parts;
    const expected = !config.ambientEnabled || [...cluster.pods()].some((pod) => sidecarOf(pod)?.verdict === "sidecar");
    if (expected) await sidecars.warm();
  }

  /**
   * What must be true of a sidecar pod's traffic.
   * @throws AgentError ANNOTATION_INVALID naming annotation, value and what is allowed
   */
  plan(pod: Pod, ips: readonly string[]): Redirection {
    return planRedirection(sidecarSettings(pod), ips, this.parts.config.sidecarOwnerGroups);
  }

  /** What is wanted of a pod, and what the kernel says of it; an annotation that is not allowed is a fact too. */
  inspect(pod: Pod): { desired: Record<string, string>; facts: (netns: NetnsHandle) => readonly KernelFact[] } {
    try {
      const target = this.target(pod);
      return {
        desired: describeSidecar(sidecarSettings(pod), target.redirection),
        facts: (netns) => this.parts.sidecars.examine(netns, target),
      };
    } catch (error) {
      if (codeOf(error) !== "ANNOTATION_INVALID") throw error;
      const fact: KernelFact = { name: "redirection", ok: false, text: messageOf(error) };
      return { desired: {}, facts: () => [fact] };
    }
  }

  /** Real connections in the pod's netns. @throws as `plan` */
  prove(pod: Pod, netns: NetnsHandle): Promise<readonly Proof[]> {
    return this.parts.sidecars.prove(netns, this.target(pod));
  }

  /**
   * Redirects the pod in this netns, where that is not done yet; `via`: who wants it, for the log.
   * @throws as `plan`, and AgentError NO_ENGINE; nothing is left half-applied
   */
  async redirect(
    pod: Pod,
    ips: readonly string[],
    netns: NetnsHandle,
    via: "cni" | "repair" | "drift",
  ): Promise<RedirectionObservation> {
    const name = podKey(pod);
    const settings = sidecarSettings(pod);
    const redirection = planRedirection(settings, ips, this.parts.config.sidecarOwnerGroups);
    for (const warning of settings.warnings) this.parts.logger.warn(warning, { pod: name });
    const began = performance.now();
    const seen = await this.limited(() => this.parts.sidecars.redirect(netns, redirection, name));
    const milliseconds = performance.now() - began;
    this.parts.metrics.observe("ambient_cni_sidecar_redirect_seconds", milliseconds / 1000, {
      engine: seen.engine ?? "none",
    });
    // As upstream: Envoy does not listen in IPv6 either then.
    const open = ips.some((ip) => ip.includes(":")) && !redirection.families.includes(6);
    const extent = open ? `${settings.mode}, IPv6 left alone: ISTIO_DUAL_STACK is off` : settings.mode;
    const detail = seen.mode === "foreign" ? "by somebody else; left as it was found" : extent;
    const decision = { what: "redirected", engine: seen.engine, milliseconds, reason: via, detail } as const;
    // A repair is told by who found it needed, with what was wrong.
    if (via !== "drift") this.parts.decisions.note({ uid: pod.uid, name }, decision);
    return seen;
  }

  /**
   * True when the redirection is not there, or not as it should be.
   * @throws AgentError ANNOTATION_INVALID
   */
  needsRedirection(pod: Pod, netns: NetnsHandle): boolean {
    const { mode } = this.observe(pod, netns);
    return mode === "absent" || mode === "differs";
  }

  /** What redirects the pod, against what its annotations ask. @throws as `plan` */
  observe(pod: Pod, netns: NetnsHandle): RedirectionObservation {
    return this.parts.sidecars.observe(netns, this.plan(pod, pod.ips));
  }

  /** True when nothing redirects this sidecar pod, whatever its annotations say by now. */
  isUnredirected(pod: Pod, netns: NetnsHandle): boolean {
    const plain = { ...pod, annotations: {} };
    return this.parts.sidecars.observe(netns, this.plan(plain, pod.ips)).mode === "absent";
  }

  private target(pod: Pod): RedirectedPod {
    return { ips: pod.ips, redirection: this.plan(pod, pod.ips), proxyUid: sidecarSettings(pod).uid };
  }
}
