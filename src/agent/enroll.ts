// SPDX-License-Identifier: Apache-2.0
import { AgentError, messageOf } from "../core/errors.ts";
import type { CapturePlan, CaptureSpec, EngineName, Observation } from "../core/ports/dataplane.ts";
import type { NetnsHandle } from "../core/ports/netns.ts";
import type { PlannedChange } from "../core/ports/plan.ts";
import { runSteps, type Step } from "../core/transaction.ts";
import { exemptibleIps } from "./desire.ts";
import type { Enrollment } from "./enrollment.ts";
import { Exemption } from "./exemption.ts";
import type { Parts } from "./parts.ts";

/** A retry is useful: the netns appears when the runtime has started the pod. */
export function netnsNotFound(enrollment: Enrollment): AgentError {
  return new AgentError(
    "NETNS_NOT_FOUND",
    `no process of pod ${enrollment.name} (uid ${enrollment.uid}) lives in a netns that carries ${enrollment.ips.join(", ")}`,
    "nothing to do while the pod starts; otherwise check that the node's /proc is mounted and that the pod's runtime uses a Linux netns",
  );
}

const ADD_TO_ZTUNNEL = "add to ztunnel";

/** A step, and what it would change. */
interface EnrolmentStep extends Step {
  plan(capture: CapturePlan): readonly PlannedChange[];
}

export interface EnrolmentPlan {
  readonly engine: EngineName;
  readonly others: CapturePlan["others"];
  readonly steps: readonly { readonly name: string; readonly changes: readonly PlannedChange[] }[];
}

/**
 * Brings one pod into the mesh: state and routes, then ztunnel's ack, then the probe exemption, then
 * capture. Until the last step nothing of the pod's traffic changes, so a running pod sees no refused
 * connection, and a new pod has no process yet. A pod that was captured before this pass is only
 * repaired: whatever fails, it is never let out.
 */
export class Enroller {
  private readonly exemption: Exemption;

  /** `mendShared` puts right what all pods stand on, and says whether it had to; who only plans leaves it out. */
  constructor(
    private readonly parts: Parts,
    private readonly mendShared: () => boolean = () => false,
  ) {
    this.exemption = new Exemption(parts);
  }

  /** One pass, idempotent; a pod that is as it should be costs no fork and no message. */
  async enroll(enrollment: Enrollment, netns: NetnsHandle, spec: CaptureSpec): Promise<void> {
    let observed = this.parts.dataplane.observe(netns, spec);
    if (observed.mode !== "captured" && this.mendShared()) observed = this.parts.dataplane.observe(netns, spec);
    if (observed.mode === "captured") {
      enrollment.engine = observed.engine ?? this.parts.dataplane.engine;
      this.captured(enrollment, netns, spec);
    } else if (observed.mode === "absent" && !enrollment.wasCaptured) {
      await this.captureAnew(enrollment, netns, spec);
      this.captured(enrollment, netns, spec);
    } else {
      await this.captureAgain(enrollment, netns, spec, observed);
    }
    await this.introduce(enrollment, netns);
    const engine = enrollment.engine ?? this.parts.dataplane.engine;
    await this.exemption.allow(enrollment, spec, engine);
    const settled = this.parts.probes.settle({ uid: enrollment.uid, ips: enrollment.exemptIps, engine }, netns);
    if (!enrollment.servesCniAdd) return await settled;
    // Captured and known to ztunnel, the pod may start: the pass that follows its ADD settles the rest.
    await settled.catch((reason: unknown) =>
      this.parts.logger.warn("settling the probe exemption", { pod: enrollment.name, reason: messageOf(reason) }),
    );
  }

  /** Capture before anything that may fail: without a ztunnel the pod's connections are refused. */
  private async captureAgain(
    enrollment: Enrollment,
    netns: NetnsHandle,
    spec: CaptureSpec,
    { mode, differences }: Observation,
  ): Promise<void> {
    const { dataplane, decisions, drift: ledger, clock } = this.parts;
    const began = performance.now();
    const drift = enrollment.state === "enrolled" && sameSpec(enrollment.spec, spec);
    if (drift) enrollment.repairs.begins(clock.now());
    enrollment.engine = await dataplane.capture(netns, spec, enrollment.wasCaptured);
    this.captured(enrollment, netns, spec);
    const decision = {
      what: drift ? "repaired" : "captured",
      engine: enrollment.engine,
      milliseconds: performance.now() - began,
      reason: mode,
      detail: differences.join("; "),
    } as const;
    if (drift) {
      enrollment.repairs.repaired();
      ledger.repaired("capture", enrollment.name, decision.detail === "" ? "nothing of it was there" : decision.detail);
    }
    decisions.note(enrollment, decision, drift && !enrollment.repairs.isNews);
  }

  private captured(enrollment: Enrollment, netns: NetnsHandle, spec: CaptureSpec): void {
    enrollment.spec = spec;
    enrollment.capturedNetns = netns.id;
    enrollment.touched = true;
    enrollment.drainUntil = undefined;
    enrollment.state = "enrolled";
    enrollment.enrolledAt ??= Date.now();
    enrollment.enrolledSince ??= this.parts.clock.now();
  }

  private async captureAnew(enrollment: Enrollment, netns: NetnsHandle, spec: CaptureSpec): Promise<void> {
    const { dataplane, ztunnel, metrics, logger, decisions } = this.parts;
    const began = performance.now();
    if (enrollment.served && !enrollment.acked && !ztunnel.connections().some(({ ready }) => ready)) {
      // Told before anything is touched: a pod that waits for a ztunnel is looked at many times.
      throw new AgentError(
        "NO_ZTUNNEL",
        `no ztunnel takes ${enrollment.name}: none is connected`,
        "check that the ztunnel pod of this node runs and mounts the directory of the ZDS socket",
      );
    }
    const timings = await runSteps(this.steps(enrollment, netns, spec), (step, reason) =>
      logger.error("undoing a failed enrolment", { pod: enrollment.name, step, reason }),
    );
    const engine = enrollment.engine ?? dataplane.engine;
    for (const { name, milliseconds } of timings) {
      metrics.observe("ambient_cni_enroll_seconds", milliseconds / 1000, { engine, phase: name.replaceAll(" ", "_") });
    }
    const milliseconds = performance.now() - began;
    metrics.observe("ambient_cni_enroll_seconds", milliseconds / 1000, { engine, phase: "total" });
    decisions.note(enrollment, {
      what: "captured",
      engine,
      milliseconds,
      phases: Object.fromEntries(timings.map((timing) => [timing.name, timing.milliseconds])),
      reason: enrollment.manual !== undefined ? "manual" : enrollment.inCniAdd ? "cni" : "watch",
      detail: spec.ips.join(", "),
    });
  }

  /** What an enrolment would do, if nothing of ours were in the netns. Changes nothing. @throws AgentError as Dataplane.plan. */
  plan(enrollment: Enrollment, netns: NetnsHandle, spec: CaptureSpec, engine?: EngineName): EnrolmentPlan {
    const capture = this.parts.dataplane.plan(netns, spec, engine);
    const steps = this.steps(enrollment, netns, spec).map((step) => ({ name: step.name, changes: step.plan(capture) }));
    return { engine: capture.engine, others: capture.others, steps };
  }

  private steps(enrollment: Enrollment, netns: NetnsHandle, spec: CaptureSpec): readonly EnrolmentStep[] {
    const { dataplane, ztunnel, probes } = this.parts;
    const ackedBefore = enrollment.acked;
    const steps: readonly EnrolmentStep[] = [
      {
        name: "prepare routes",
        plan: ({ preparation }) => preparation,
        apply: () => dataplane.prepare(netns, spec),
        undo: () => dataplane.release(netns),
      },
      {
        name: ADD_TO_ZTUNNEL,
        plan: () => ztunnel.plan(enrollment.workload),
        apply: async () => {
          // Acked in a snapshot, before the engine had anything to do with this netns.
          if (enrollment.acked) return dataplane.listenersOpened(netns);
          await this.introduceTo(enrollment, netns);
        },
        undo: async () => {
          // What a snapshot told ztunnel stays told: the retry needs it, and unenrolling sends the del.
          if (ackedBefore || ztunnel.connections().length === 0) return;
          enrollment.ackedNetns = undefined;
          await ztunnel.del(enrollment.uid);
        },
      },
      {
        name: "exempt probes",
        plan: ({ engine }) =>
          probes.plan({ uid: enrollment.uid, ips: exemptibleIps(this.parts.config, spec.ips), engine }),
        apply: () => this.exemption.allow(enrollment, spec, dataplane.engineFor(netns, spec)),
        undo: () => this.exemption.revoke(enrollment),
      },
      {
        name: "capture",
        plan: ({ steering }) => steering,
        apply: async () => {
          enrollment.engine = await dataplane.capture(netns, spec);
        },
        // capture() undoes itself; the state under it goes with the first step.
        undo: () => undefined,
      },
    ];
    return enrollment.served ? steps : steps.filter(({ name }) => name !== ADD_TO_ZTUNNEL);
  }

  /** Makes sure that a captured pod is known to ztunnel, once one is connected. */
  private async introduce(enrollment: Enrollment, netns: NetnsHandle): Promise<void> {
    if (!enrollment.served || enrollment.acked || !this.parts.ztunnel.connections().some(({ ready }) => ready)) return;
    await this.introduceTo(enrollment, netns);
  }

  private async introduceTo(enrollment: Enrollment, netns: NetnsHandle): Promise<void> {
    await this.parts.ztunnel.add(enrollment.workload, netns);
    enrollment.ackedNetns = netns.id;
    enrollment.ackedConnection = undefined;
  }
}

function sameSpec(a: CaptureSpec | undefined, b: CaptureSpec): boolean {
  return a !== undefined && JSON.stringify(a) === JSON.stringify(b);
}
