// SPDX-License-Identifier: Apache-2.0
import type { Successor } from "../core/daemonset.ts";
import type { Stop } from "../core/disposable.ts";
import { AgentError, messageOf } from "../core/errors.ts";
import type { NamespaceChange, PodChange } from "../core/ports/cluster.ts";
import type { CniHandler } from "../core/ports/cni.ts";
import type { FlowSource } from "../core/ports/flows.ts";
import type { Prover } from "../core/ports/proof.ts";
import type { Tracer } from "../core/ports/trace.ts";
import { Admission } from "./admission.ts";
import { Adoption } from "./adoption.ts";
import { annotationOf } from "./announcer.ts";
import { census, type PodStatus } from "./census.ts";
import { Departure } from "./departure.ts";
import { Gauges } from "./gauges.ts";
import { Inspection } from "./inspection.ts";
import type { ManualCaptures } from "./manual-captures.ts";
import { Monitor } from "./monitor.ts";
import type { Parts } from "./parts.ts";
import { Patrol, type PatrolOptions } from "./patrol.ts";
import { Planner } from "./planner.ts";
import { Publication } from "./publication.ts";
import { Readiness } from "./readiness.ts";
import { Reconciler } from "./reconciler.ts";
import { Repair } from "./repair.ts";
import { AgentReport } from "./report.ts";
import { Roster } from "./roster.ts";
import { SidecarDrift } from "./sidecar-drift.ts";
import { Sidecars } from "./sidecars.ts";
import { Sweep } from "./sweep.ts";
import { Tracing } from "./tracing.ts";
import { VerdictTally } from "./verdict-tally.ts";
import { ZtunnelPulse } from "./ztunnel-pulse.ts";
import { ZtunnelWatch } from "./ztunnel-watch.ts";

const SWEEP_MS = 30_000;
/** What all pods share every 5 s, pods outside the mesh every 30 s: 200 of them cost about 0.2 s of CPU. */
const PATROL: PatrolOptions = { periodMs: 5000, podsEvery: 6 };
const STOP_DEADLINE_MS = 2_500;
/** With ambient off: between two tries to begin with the release of captured pods. */
const RELEASE_RETRY_MS = 30_000;

/**
 * The node agent: keeps every pod of this node as Kubernetes wants it. Start-up rebuilds the roster
 * from the kernel before ztunnel or the plugin hear anything; shutdown leaves all pods captured.
 */
export class Agent {
  readonly roster = new Roster();
  readonly reconciler: Reconciler;
  readonly admission: CniHandler;
  readonly report: AgentReport;
  private readonly sidecars: Sidecars;
  private readonly repair: Repair;
  private readonly sweep: Sweep;
  /** Public for tests, as the next one. */
  readonly pulse: ZtunnelPulse;
  /** Public for tests, which need not wait for its turn. */
  readonly patrol: Patrol;
  private readonly publication: Publication;
  private readonly gauges: Gauges;
  private readonly stops: Stop[] = [];
  private serving = false;
  private halted = false;
  private proved = false;
  private readonly readiness: Readiness;
  /** What the kernel had at the start is in the roster; never with ambient off and no captured pod. */
  private adopted = false;
  private exempting = false;
  private cancelRelease: Stop = () => undefined;

  constructor(
    private readonly parts: Parts,
    sweepMs: number = SWEEP_MS,
    patrol: PatrolOptions = PATROL,
    pulseMs?: number,
  ) {
    const verdicts = new VerdictTally(parts, this.roster);
    this.reconciler = new Reconciler(parts, this.roster, verdicts);
    this.sidecars = new Sidecars(parts);
    this.admission = new Admission(parts, this.roster, this.reconciler, this.sidecars, () => this.serving);
    this.repair = new Repair(parts, this.sidecars);
    const sidecarDrift = new SidecarDrift(parts, this.sidecars);
    this.pulse = new ZtunnelPulse(parts, this.roster, pulseMs);
    this.report = new AgentReport(parts, this.roster, this.reconciler.queue, sidecarDrift, this.pulse);
    this.patrol = new Patrol(parts, this.roster, this.reconciler, sidecarDrift, () => this.adopted, patrol);
    this.publication = new Publication(parts);
    this.sweep = new Sweep(parts, this.roster, this.reconciler, sweepMs, () => void this.publication.write(true));
    this.gauges = new Gauges(parts, this.roster, this.reconciler.queue, verdicts, sidecarDrift);
    this.readiness = new Readiness(parts);
  }

  /**
   * Caches and self-tests, then the kernel's state of every pod, then ztunnel, the queue and (by the
   * caller, once this resolves) the plugin's socket. With ambient off only what sidecar pods need, unless
   * captured pods are left that are to be released. @throws what a part throws that cannot start.
   */
  async start(): Promise<void> {
    const { cluster, config, logger } = this.parts;
    if (config.ambientEnabled) await this.startMesh(cluster.start());
    else await this.startWithoutAmbient();
    // Told to end meanwhile: nothing that has been stopped may begin again.
    if (this.halted) return;
    this.stops.push(cluster.onPod((change) => this.podChanged(change)));
    this.stops.push(cluster.onNamespace((change) => this.namespaceChanged(change)));
    this.serving = true;
    if (this.adopted) this.work();
    this.repair.start();
    this.patrol.start();
    void this.sidecars.warm();
    await this.publication.write();
    logger.info("serving", { pods: this.roster.size, engine: this.report.engine() ?? "none" });
  }

  private async startMesh(clusterStarts: Promise<void>): Promise<void> {
    const { dataplane, ztunnel, probes, config } = this.parts;
    if (config.ambientEnabled) ztunnel.listen();
    const proof = dataplane.start().then((tests) => {
      this.proved = true;
      return tests;
    });
    const [tests] = await Promise.all([proof, clusterStarts]);
    this.gauges.proved(tests);
    if (this.halted) return;
    if (!this.exempting) await probes.start();
    this.exempting = true;
    await new Adoption(this.parts, this.roster, this.reconciler.manual.keeping).adopt();
    this.adopted = true;
  }

  /** No ztunnel is served. Pods that were captured while ambient was on leave the mesh as any pod does. */
  private async startWithoutAmbient(): Promise<void> {
    const { cluster, probes, logger } = this.parts;
    await cluster.start();
    const captured = [...cluster.pods()].filter((pod) => annotationOf(pod) !== null);
    const manual = await this.parts.claims.read().catch(() => []);
    if (captured.length + manual.length > 0) {
      logger.info("ambient is off: captured pods are released", { pods: captured.length, manual: manual.length });
      return await this.startRelease();
    }
    await probes.bequeath([]).catch((error: unknown) => {
      logger.debug("nothing to remove from the host", { error: messageOf(error) });
    });
  }

  /** Sidecar pods don't wait for it, and until it succeeds captured pods keep what they need on the host. */
  private async startRelease(): Promise<void> {
    try {
      await this.startMesh(Promise.resolve());
    } catch (error) {
      this.parts.logger.error("ambient is off, and captured pods can't be released yet", { error: messageOf(error) });
      if (this.halted) return;
      this.cancelRelease = this.parts.clock.after(RELEASE_RETRY_MS, async () => {
        await this.startRelease();
        if (this.adopted && !this.halted) this.work();
      });
    }
  }

  /** Everything that keeps captured pods as they should be. */
  private work(): void {
    const { cluster, ztunnel, config } = this.parts;
    if (config.ambientEnabled) {
      const watch = new ZtunnelWatch(this.parts, this.roster, this.reconciler);
      ztunnel.serve(() => this.roster.snapshot(), watch);
      this.pulse.start();
    }
    for (const { uid } of cluster.pods()) this.reconciler.queue.trigger(uid);
    // Also what was adopted and has been deleted since: its delete event came before we listened.
    for (const { uid } of this.roster.all()) this.reconciler.queue.trigger(uid);
    this.reconciler.queue.start();
    this.sweep.start();
  }

  /** Ends all work; the kernel keeps every pod captured, and everything waits for the next agent. */
  async stop(): Promise<void> {
    await this.halt(STOP_DEADLINE_MS);
    await this.publication.stop(true);
    if (this.adopted || this.parts.config.ambientEnabled) await this.parts.probes.stop();
    await this.close();
  }

  /**
   * Ends all work when no agent of ours follows on this node. `until`: when that has to be over, on the clock of
   * the parts. Never throws for what could not be done: that is logged.
   */
  async depart(successor: Exclude<Successor, "same">, until: number): Promise<void> {
    const { config, clock, probes, logger } = this.parts;
    await this.halt(Math.max(0, Math.min(STOP_DEADLINE_MS, (until - clock.now()) / 3)));
    if (this.adopted) {
      const departure = new Departure(this.parts, this.roster, until, this.reconciler.queue.running);
      if (successor === "other") await departure.handOver();
      else if (config.uncaptureOnRemoval) await departure.uncapture();
      // After the pods, whose time it must not take.
      await departure.endManual(this.reconciler.manual.record);
      await departure.vacate();
    } else if (config.ambientEnabled) {
      logger.warn("which pods are captured was not known yet: host objects stay; `ambient-cni remove` takes them away");
      await probes.stop();
    }
    await this.close();
    // Whoever removes the file next must not find it again.
    await this.publication.stop(false);
  }

  private async halt(deadlineMs: number): Promise<void> {
    this.halted = true;
    this.serving = false;
    this.sweep.stop();
    this.pulse.stop();
    this.cancelRelease();
    for (const stop of this.stops.splice(0)) stop();
    await Promise.all([
      this.reconciler.queue.stop(deadlineMs),
      this.repair.stop(deadlineMs),
      this.patrol.stop(deadlineMs),
    ]);
    this.reconciler.lookup.close();
  }

  private async close(): Promise<void> {
    if (this.parts.config.ambientEnabled) await this.parts.ztunnel.stop();
    await this.parts.cluster.stop();
    for (const { uid } of [...this.roster.all()]) this.roster.remove(uid);
  }

  /** Looks at single pods. */
  inspection(prover: Prover): Inspection {
    return new Inspection(this.parts, this.roster, this.report, this.sidecars, prover);
  }

  /** Says what would be done. */
  planner(): Planner {
    return new Planner(this.parts, this.roster, this.report);
  }

  /** Captures by hand; whoever asks is told to come again until pods are known. @throws AgentError AGENT_STARTING */
  get manual(): ManualCaptures {
    if (this.serving) return this.reconciler.manual;
    throw new AgentError("AGENT_STARTING", "the agent is still reading the cluster and the kernel", "try again");
  }

  /** Tells flows to who asks. */
  monitor(source: FlowSource): Monitor {
    return new Monitor(this.parts, this.roster, this.report, source);
  }

  /** Follows single connections. */
  tracing(inspection: Inspection, monitor: Monitor, tracer: Tracer): Tracing {
    return new Tracing(this.parts, this.roster, this.report, inspection, monitor, tracer);
  }

  /** Every pod of the node with its state and the reason for it. */
  pods(): PodStatus[] {
    return census(this.parts, this.roster);
  }

  /** Brings up to date what is measured when somebody asks for metrics. */
  measure(): void {
    this.gauges.update();
  }

  /** What is missing for readiness, a sentence each; empty = ready. */
  missing(): string[] {
    const absent = this.absent();
    return this.readiness.missing(absent, absent.length > 0 ? [] : this.pods());
  }

  /** Of the agent itself, in the order in which it comes. */
  private absent(): string[] {
    const { cluster, ztunnel, config } = this.parts;
    const absent: string[] = [];
    if (!cluster.synced) absent.push("kubernetes: pods and namespaces are not listed yet");
    if (config.ambientEnabled) {
      if (!this.proved) absent.push("dataplane: no engine is proved yet");
      if (!this.adopted) absent.push("kernel: the pods' state is not read yet");
    }
    if (!this.serving) absent.push("agent: not serving yet");
    else if (config.ambientEnabled && !ztunnel.listening) absent.push("ztunnel: its socket is gone from the node");
    return absent;
  }

  private podChanged({ kind, pod }: PodChange): void {
    this.parts.metrics.count("nodeagent_reconcile_events_total", { type: kind === "delete" ? "delete" : "update" });
    const enrollment = this.roster.get(pod.uid);
    if (enrollment !== undefined && kind === "delete") enrollment.admittedUntil = 0;
    // Nobody works without pods that are, or were, of the mesh.
    if (this.adopted) this.reconciler.queue.trigger(pod.uid);
    this.publication.touch();
  }

  private namespaceChanged({ kind, namespace, previous }: NamespaceChange): void {
    this.publication.touch();
    // A deleted namespace's pods go by their own delete events; nothing to decide here.
    if (kind === "delete" || JSON.stringify(previous?.labels) === JSON.stringify(namespace.labels)) return;
    this.parts.metrics.count("nodeagent_reconcile_events_total", { type: previous === undefined ? "add" : "update" });
    for (const pod of this.adopted ? this.parts.cluster.pods() : []) {
      if (pod.namespace === namespace.name) this.reconciler.queue.trigger(pod.uid);
    }
  }
}
