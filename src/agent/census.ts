// SPDX-License-Identifier: Apache-2.0
import { isTerminal, podKey } from "../core/pod.ts";
import { eligibilityOf } from "./desire.ts";
import type { Parts } from "./parts.ts";
import type { Roster } from "./roster.ts";

/** One pod of the node, as status and metrics show it. */
export interface PodStatus {
  readonly uid: string;
  readonly pod: string;
  readonly ips: readonly string[];
  readonly phase: string;
  readonly state: "enrolled" | "pending" | "failing" | "draining" | "none" | "sidecar";
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
      if (verdict !== "ambient") return verdict;
      if (enrollment?.state === "enrolled" && failure === undefined && !enrollment.lost) return "enrolled";
      return failure === undefined || waitsForZtunnel ? "pending" : "failing";
    })();
    seen.push({
      uid: pod.uid,
      pod: podKey(pod),
      ips: pod.ips,
      phase: pod.phase,
      state,
      reason: failure?.code ?? reason,
      detail: failure?.message ?? detail,
      netns: enrollment?.netns?.id,
      engine: enrollment?.state === "enrolled" ? enrollment.engine : undefined,
      acked: enrollment?.acked ?? false,
      captured: enrollment?.state === "enrolled" && !enrollment.lost,
      annotation: enrollment?.annotation ?? null,
      existing: enrollment?.state === "enrolled" ? enrollment.existing : 0,
    });
  }
  return seen;
}

/** Sets the gauges of pods by state and reason; groups that have emptied go to 0. */
export class CensusGauge {
  private readonly known = new Map<string, { state: string; reason: string }>();

  constructor(private readonly parts: Parts) {}

  update(pods: readonly PodStatus[]): void {
    const counts = new Map<string, number>();
    for (const { state, reason } of pods) {
      const key = `${state}\u0000${reason}`;
      this.known.set(key, { state, reason });
      counts.set(key, (counts.get(key) ?? 0) + 1);
    }
    const existing = pods.reduce((sum, pod) => sum + pod.existing, 0);
    this.parts.metrics.set("ambient_cni_existing_connections", existing);
    for (const [key, labels] of this.known) {
      this.parts.metrics.set("ambient_cni_pods", counts.get(key) ?? 0, labels);
    }
  }
}
