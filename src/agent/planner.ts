// SPDX-License-Identifier: Apache-2.0
import type { Eligibility } from "../core/eligibility.ts";
import { AgentError, codeOf, messageOf } from "../core/errors.ts";
import { type Pod, podKey } from "../core/pod.ts";
import type { CaptureSpec, EngineName, Observation } from "../core/ports/dataplane.ts";
import type { NetnsHandle } from "../core/ports/netns.ts";
import type { PlanReport } from "../core/report/plan.ts";
import { captureSpec, eligibilityOf } from "./desire.ts";
import { Enroller, netnsNotFound } from "./enroll.ts";
import { Enrollment } from "./enrollment.ts";
import type { Parts } from "./parts.ts";
import { withinNetns } from "./reach.ts";
import type { AgentReport } from "./report.ts";
import type { Roster } from "./roster.ts";

export interface PlanQuestion {
  readonly engine: EngineName | undefined;
  /** Also for a pod that is not of the mesh: what its enrolment would take. */
  readonly anyway: boolean;
}

type Planned = Pick<PlanReport, "now" | "engine" | "others" | "steps" | "notes" | "problem">;

const NO_STEPS = { engine: null, others: [], steps: [], notes: [], problem: null } as const;

/** Says what an enrolment would change, by asking the very steps that would do it. Changes nothing. */
export class Planner {
  readonly #enroller: Enroller;

  constructor(
    private readonly parts: Parts,
    private readonly roster: Roster,
    private readonly report: AgentReport,
  ) {
    this.#enroller = new Enroller(parts);
  }

  /** @throws AgentError POD_NOT_FOUND; what the kernel says when it can't be read. */
  async plan(uid: string, { engine, anyway }: PlanQuestion): Promise<PlanReport> {
    const { config, cluster } = this.parts;
    const pod = cluster.pod(uid);
    if (pod === undefined) throw new AgentError("POD_NOT_FOUND", `no pod of this node has the uid ${uid}`);
    const eligibility = eligibilityOf(config, cluster, pod);
    const head = { ...this.report.head(), uid, pod: podKey(pod), eligibility };
    if (eligibility.verdict !== "ambient" && !anyway)
      return { ...head, ...NO_STEPS, now: this.#outside(pod, eligibility) };
    const planned = await withinNetns(this.parts, this.roster, pod, (netns) =>
      this.#inside(pod, netns, eligibility, engine),
    ).catch(failed);
    return { ...head, ...(planned ?? failed(netnsNotFound(this.roster.get(uid) ?? new Enrollment(pod)))) };
  }

  /** Of a netns that is to be captured by hand. */
  planNetns(enrollment: Enrollment, netns: NetnsHandle, spec: CaptureSpec, detail: string): PlanReport {
    const { engine, others, steps } = this.#enroller.plan(enrollment, netns, spec);
    return {
      ...this.report.head(),
      ...NO_STEPS,
      uid: enrollment.uid,
      pod: enrollment.name,
      eligibility: { verdict: "ambient", reason: "manual", detail },
      now: "nothing, until it is enrolled by hand",
      ...{ engine, others, steps },
    };
  }

  #inside(pod: Pod, netns: NetnsHandle, eligibility: Eligibility, wanted: EngineName | undefined): Planned {
    const { config, nameservers, dataplane, cluster, ztunnel } = this.parts;
    const enrollment = this.roster.get(pod.uid) ?? new Enrollment(pod);
    const { spec, warnings } = captureSpec(config, pod, enrollment.ips, nameservers);
    const { engine, others, steps } = this.#enroller.plan(enrollment, netns, spec, wanted);
    const { uid, namespace, name } = pod;
    const annotate = { name: "annotate", changes: cluster.planAnnotation({ uid, namespace, name }, "enabled") };
    const ready = ztunnel.connections().some((connection) => connection.ready);
    const mesh = eligibility.verdict === "ambient";
    return {
      now: mesh ? passText(dataplane.observe(netns, spec), ready) : this.#outside(pod, eligibility),
      engine,
      others,
      steps: [...steps, annotate],
      notes: [...warnings, ...(ready ? [] : ["no ztunnel is connected: a pod that is not captured waits for one"])],
      problem: null,
    };
  }

  /** What a pass does with a pod that is not of the mesh. */
  #outside(pod: Pod, { verdict, reason }: Eligibility): string {
    if (verdict === "sidecar") return "nothing: it is redirected into its sidecar when its sandbox is made";
    if (reason === "namespace-unknown") return "nothing: not knowing is no reason to change";
    const known = this.roster.get(pod.uid);
    return known === undefined
      ? "nothing: it is not in the mesh"
      : "it leaves the mesh: what is ours is removed from it";
  }
}

function passText({ mode, engine, differences }: Observation, ready: boolean): string {
  switch (mode) {
    case "captured":
      return `nothing: captured by ${engine ?? "?"} as it should be`;
    case "absent":
      return ready ? "the steps below: nothing of ours is in its netns" : "nothing, until a ztunnel is connected";
    case "draining":
      return "captured again: it was leaving the mesh";
    case "differs":
      return `captured again: ${differences.join("; ")}`;
  }
}

function failed(error: unknown): Planned {
  return { ...NO_STEPS, now: "it fails", problem: { code: codeOf(error), message: messageOf(error) } };
}
