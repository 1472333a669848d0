// SPDX-License-Identifier: Apache-2.0
// Redirections as tests want them.
import type { SidecarProxy } from "../../src/core/pod.ts";
import type { Redirection } from "../../src/core/redirection.ts";
import type { Sample } from "../../src/dataplane/sidecar/selftest.ts";
import type { OwnerGroups } from "../../src/sidecar/outbound.ts";
import { planRedirection } from "../../src/sidecar/plan.ts";
import { sampleRedirection } from "../../src/sidecar/sample.ts";
import { sidecarSettings } from "../../src/sidecar/settings.ts";

export const DUAL_STACK = ["10.66.0.2", "fd66::2"] as const;

export interface RedirectionWish {
  readonly annotations?: Readonly<Record<string, string>>;
  readonly env?: SidecarProxy["env"];
  readonly uid?: number;
  readonly gid?: number;
  readonly ips?: readonly string[];
  readonly groups?: OwnerGroups;
}

/** The redirection of a pod that says this much; dual stack unless it says so itself. */
export function redirectionOf(wish: RedirectionWish = {}): Redirection {
  const { annotations = {}, env = {}, uid, gid, ips = DUAL_STACK, groups } = wish;
  const proxy = { uid, gid, role: "sidecar", env: { ISTIO_DUAL_STACK: "true", ...env } };
  return planRedirection(sidecarSettings({ annotations, proxy }), ips, groups);
}

export const sample: Sample = sampleRedirection;
