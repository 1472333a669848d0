// SPDX-License-Identifier: Apache-2.0
import { CONFIG_HASH_ANNOTATION } from "../core/constants.ts";
import { sidecarOf } from "../core/eligibility.ts";
import { AgentError, codeOf, messageOf } from "../core/errors.ts";
import { type Pod, podKey } from "../core/pod.ts";
import { type CniHandler, type CniPodRequest, type CniVerdict, UNREACHED_NETNS } from "../core/ports/cni.ts";
import { eligibilityOf } from "./desire.ts";
import type { Parts } from "./parts.ts";
import type { Reconciler } from "./reconciler.ts";
import type { Roster } from "./roster.ts";
import type { Sidecars } from "./sidecars.ts";

/** How long a request waits for the caches to hold its pod and namespace before it asks the API, in ms. */
const CACHE_WAIT_MS = 300;
const CACHE_POLL_MS = 10;

const retry = (code: string, message: string) => new AgentError(code, message, "the runtime will try again");

interface Admitted {
  readonly verdict: CniVerdict;
  readonly reason: string;
  readonly detail: string;
}

/** Answers the CNI plugin: a pod of the mesh leaves ADD captured, or redirected into its sidecar, or not at all. */
export class Admission implements CniHandler {
  constructor(
    private readonly parts: Parts,
    private readonly roster: Roster,
    private readonly reconciler: Reconciler,
    private readonly sidecars: Sidecars,
    private readonly serving: () => boolean,
  ) {}

  async add(request: CniPodRequest, signal: AbortSignal): Promise<CniVerdict> {
    const began = performance.now();
    const name = `${request.podNamespace}/${request.podName}`;
    if (!this.serving()) throw retry("AGENT_STARTING", "the agent is still reading the cluster and the kernel");
    const pod = await this.findPod(request, signal);
    if (pod === undefined) {
      throw retry(
        "POD_NOT_FOUND",
        `neither the cache nor the API has pod ${name} (uid ${request.podUid ?? "not given"})`,
      );
    }
    const answered = (reason: string, detail: string) => {
      const milliseconds = performance.now() - began;
      this.parts.decisions.note({ uid: pod.uid, name }, { what: "cni add", milliseconds, reason, detail });
    };
    try {
      const { verdict, reason, detail } = await this.admit(pod, request, name, signal);
      answered(reason, detail);
      return verdict;
    } catch (error) {
      const comesAgain = request.mayHandOver === true && UNREACHED_NETNS.has(codeOf(error));
      if (!comesAgain) answered(codeOf(error), messageOf(error));
      throw error;
    }
  }

  private async admit(pod: Pod, request: CniPodRequest, name: string, signal: AbortSignal): Promise<Admitted> {
    const { verdict, reason, detail } = eligibilityOf(this.parts.config, this.parts.cluster, pod);
    if (reason === "namespace-unknown") throw retry("NAMESPACE_NOT_FOUND", detail);
    if (verdict === "none") return { verdict, reason, detail };
    if (request.ips.length === 0) {
      throw new AgentError(
        "NO_POD_IP",
        `the CNI result for pod ${name} has no address`,
        "check the primary CNI plugin",
      );
    }
    if (verdict === "ambient") await this.capture(pod, request);
    else await this.redirect(pod, request, signal);
    return { verdict, reason, detail };
  }

  async check(request: CniPodRequest): Promise<void> {
    const pod = this.parts.cluster.podNamed(request.podNamespace, request.podName);
    if (pod !== undefined && sidecarOf(pod)?.verdict === "sidecar") return this.checkSidecar(pod, request);
    const enrollment = pod === undefined ? undefined : this.roster.get(pod.uid);
    if (enrollment?.netns === undefined || enrollment.spec === undefined || enrollment.state !== "enrolled") return;
    const { mode, differences } = this.parts.dataplane.observe(enrollment.netns, enrollment.spec);
    if (mode === "captured") return;
    this.reconciler.queue.trigger(enrollment.uid);
    throw new AgentError(
      "NOT_CAPTURED",
      `pod ${enrollment.name} is in the mesh but not captured: ${mode}${differences.map((text) => `; ${text}`).join("")}`,
      "the agent repairs it by itself; see its log",
    );
  }

  private checkSidecar(pod: Pod, request: CniPodRequest): void {
    using netns = this.parts.finder.open(request.netns, request.takeNetns?.());
    if (!this.sidecars.isUnredirected(pod, netns)) return;
    throw new AgentError(
      "NOT_CAPTURED",
      `nothing redirects the traffic of ${podKey(pod)} into its sidecar`,
      "delete the pod: its successor's sandbox gets a redirection when it is made",
    );
  }

  private async capture(pod: Pod, request: CniPodRequest): Promise<void> {
    const handle = this.parts.finder.open(request.netns, request.takeNetns?.());
    const enrollment = this.roster.ensure(pod);
    enrollment.admit();
    enrollment.offerSandbox(handle, request.ips);
    let captured = false;
    try {
      await this.reconciler.queue.run(pod.uid);
      captured =
        this.roster.get(pod.uid) === enrollment &&
        enrollment.capturedNetns === handle.id &&
        enrollment.state === "enrolled";
    } finally {
      enrollment.endCniAdd(handle.id, captured);
    }
    // The pass may have found that the pod has been deleted or is no longer wanted: that is no capture.
    if (!captured) {
      throw retry("POD_CHANGED", `pod ${enrollment.name} was changed or deleted while it was being captured`);
    }
  }

  /** The netns is the runtime's: nothing of it is kept, and its rules go with it. */
  private async redirect(pod: Pod, request: CniPodRequest, signal: AbortSignal): Promise<void> {
    using netns = this.parts.finder.open(request.netns, request.takeNetns?.());
    // Whoever gave up will come again, with a netns of its own.
    if (signal.aborted) throw retry("REQUEST_ABORTED", "the plugin gave up waiting");
    await this.sidecars.redirect(pod, request.ips, netns, "cni");
  }

  /**
   * The pod that the runtime means. With a uid only that very pod will do: the cache may still hold the
   * previous pod of the same name (a StatefulSet's), which must not be enrolled in its place.
   */
  private async findPod(request: CniPodRequest, signal: AbortSignal): Promise<Pod | undefined> {
    const { cluster } = this.parts;
    const { podNamespace, podName, podUid } = request;
    const fits = (pod: Pod | undefined): pod is Pod =>
      pod !== undefined &&
      // A static pod's runtime uid is its config hash; the API's mirror pod has a uid of its own.
      (podUid === undefined || pod.uid === podUid || pod.annotations[CONFIG_HASH_ANNOTATION] === podUid);
    for (let waited = 0; waited <= CACHE_WAIT_MS; waited += CACHE_POLL_MS) {
      const cached = cluster.podNamed(podNamespace, podName);
      if (fits(cached) && cluster.namespace(podNamespace) !== undefined) return cached;
      if (signal.aborted) throw retry("REQUEST_ABORTED", "the plugin gave up waiting");
      await new Promise<void>((resolve) => this.parts.clock.after(CACHE_POLL_MS, resolve));
    }
    const cached = cluster.podNamed(podNamespace, podName);
    if (fits(cached)) return cached;
    const live = await cluster.readPod(podNamespace, podName, signal);
    return fits(live) ? live : undefined;
  }
}
