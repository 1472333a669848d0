// SPDX-License-Identifier: Apache-2.0
import { basename } from "node:path";
import type { Config } from "../core/config/config.ts";
import { type Pod, plainPod } from "../core/pod.ts";
import type { CaptureSpec, EngineName } from "../core/ports/dataplane.ts";
import type { ManualClaim } from "../core/ports/manual.ts";
import type { NetnsFinder, NetnsHandle, NetnsId } from "../core/ports/netns.ts";
import { captureSpec } from "./desire.ts";
import type { Enrollment } from "./enrollment.ts";
import type { Roster } from "./roster.ts";

/** What eligibility says of it. */
export function manualEligibility({ netns }: ManualClaim) {
  return { verdict: "ambient", reason: "manual", detail: `captured by hand: ${netns}` } as const;
}

/** As a pod, for whoever works on pods. */
export function podOf({ uid, netns, ips, workload }: ManualClaim): Pod {
  return plainPod({
    uid,
    namespace: workload?.namespace ?? "manual",
    name: workload?.name ?? basename(netns),
    serviceAccount: workload?.serviceAccount ?? "",
    phase: "Running",
    ips,
  });
}

/** What must be true of its traffic. */
export function manualSpec(config: Config, claim: ManualClaim, engine?: EngineName): CaptureSpec {
  const { spec } = captureSpec(config, podOf(claim), claim.ips, () => undefined);
  return { ...spec, pod: claim.uid, ...(engine === undefined ? {} : { engine }) };
}

/** Among the pods; the netns is the roster's from here on. */
export function admitted(roster: Roster, claim: ManualClaim, netns: NetnsHandle): Enrollment {
  const enrollment = roster.ensure(podOf(claim));
  enrollment.manual = claim;
  // Nobody else ever reads it: no pod of the API has it.
  enrollment.annotation = null;
  enrollment.adoptNetns(netns);
  return enrollment;
}

/** Which netns a path leads to; undefined: to none that may be captured. */
export function netnsAt(finder: NetnsFinder, path: string): NetnsId | undefined {
  try {
    using netns = finder.open(path);
    return netns.id;
  } catch {
    return undefined;
  }
}
