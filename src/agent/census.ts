// SPDX-License-Identifier: Apache-2.0
import { isTerminal, podKey } from "../core/pod.ts";
import type { ManualClaim } from "../core/ports/manual.ts";
import { SANDBOX_GONE } from "../core/report/pods.ts";
import { eligibilityOf } from "./desire.ts";
import type { Enrollment } from "./enrollment.ts";
import { manualEligibility } from "./manual-pod.ts";
import type { Parts } from "./parts.ts";
import type { Roster } from "./roster.ts";

/** One pod of the node, as status and metrics show it. */
export interface PodStatus {
  readonly uid: string;
  readonly pod: string;
  readonly ips: readonly string[];
  readonly phase: string;
  readonly state: "enrolled" | "pending" | "failing" | "draining" | "unwanted" | "none" | "sidecar" | "manual";
  /** Stable word: why it is (not) in the mesh, or the failure's code. */
  readonly reason: string;
  readonly detail: string;
  readonly netns: string | undefined;
  readonly engine: string | undefined;
  readonly acked: boolean;
  /** Its traffic is captured, whatever else may be wrong with it. */
  readonly captured: boolean;
  readonly annotation: string | null;
  /** Open connections that are older than the capture. */
  readonly existing: number;
}

/** Every pod of the node with its state and the reason for it. */
export function census(parts: Parts, roster: Roster): PodStatus[] {
  const seen: PodStatus[] = [];
  for (const pod of parts.cluster.pods()) {
    if (isTerminal(pod)) continue;
    const { verdict, reason, detail } = eligibilityOf(parts.config, parts.cluster, pod);
    const enrollment = roster.get(pod.uid);
    const failure = enrollment?.failure;
    const waitsForZtunnel = failure?.code === "NO_ZTUNNEL";
    const state = (() => {
      if (enrollment?.state === "draining") return "draining";
      const captured = enrollment?.capturedNetns !== undefined;
      // Not knowing is no reason to call a captured pod anything else.
      const undecided = captured && reason === "namespace-unknown";
      // Its release is due, or does not succeed: then the reason is the failure's.
      if (verdict !== "ambient" && !undecided) return captured ? "unwanted" : verdict;
      if (enrollment?.going) return "pending";
      if (enrollment?.state === "enrolled" && failure === undefined && !enrollment.lost) return "enrolled";
      return failure === undefined || waitsForZtunnel ? "pending" : "failing";
    })();
    seen.push({
      uid: pod.uid,
      pod: podKey(pod),
      ips: pod.ips,
      phase: pod.phase,
      state,
      reason: enrollment?.going ? SANDBOX_GONE : (failure?.code ?? reason),
      detail: enrollment?.going ? "its sandbox has been taken down" : (failure?.message ?? detail),
      netns: enrollment?.netns?.id,
      engine: enrollment?.state === "enrolled" ? enrollment.engine : undefined,
      acked: enrollment?.acked ?? false,
      captured: enrollment?.state === "enrolled" && !enrollment.lost && !enrollment.going,
      annotation: enrollment?.annotation ?? null,
      existing: enrollment?.state === "enrolled" ? enrollment.existing : 0,
    });
  }
  for (const enrollment of roster.all()) {
    if (enrollment.manual !== undefined) seen.push(manualStatus(enrollment, enrollment.manual));
  }
  return seen;
}

function manualStatus(enrollment: Enrollment, claim: ManualClaim): PodStatus {
  const { uid, name, ips, failure, engine, netns, acked, state, existing } = enrollment;
  const { reason, detail } = manualEligibility(claim);
  return {
    uid,
    pod: name,
    ips,
    phase: "Running",
    state: state === "draining" ? "draining" : "manual",
    reason: failure?.code ?? reason,
    detail: failure?.message ?? detail,
    netns: netns?.id,
    engine: state === "enrolled" ? engine : undefined,
    acked,
    captured: state === "enrolled",
    annotation: null,
    existing,
  };
}

/** Where what is wanted of a pod and what is in the kernel fall apart. */
export type Astray =
  /** Belongs to the mesh and runs, and its traffic is not captured. */
  | "not_captured"
  /** Does not belong to the mesh (any more), and its traffic is captured. */
  | "not_wanted";

/** undefined: a pod is what it should be, or about to become it without anybody having lost anything. */
export function astrayOf({ state, reason, captured, phase, ips }: PodStatus): Astray | undefined {
  if (state === "unwanted") return "not_wanted";
  const belongs = (state === "pending" || state === "failing") && reason !== SANDBOX_GONE;
  return belongs && !captured && phase === "Running" && ips.length > 0 ? "not_captured" : undefined;
}
