// SPDX-License-Identifier: Apache-2.0
import { AGENT_CHECKS } from "./agent.ts";
import { BALANCER_CHECKS } from "./balancers.ts";
import { CATEGORIES, type Check } from "./check.ts";
import { CLOCK_CHECKS } from "./clock.ts";
import { CLUSTER_NETWORK_CHECKS } from "./cluster-network.ts";
import { CNI_CHECKS } from "./cni.ts";
import { CREDENTIAL_CHECKS } from "./credentials.ts";
import { KERNEL_CHECKS } from "./kernel.ts";
import { NETWORK_CHECKS } from "./network.ts";
import { POD_CHECKS } from "./pods.ts";
import { POLICY_CHECKS } from "./policies.ts";
import { PROBE_CHECKS } from "./probes.ts";
import { SIDECAR_CHECKS } from "./sidecars.ts";

const ALL: readonly Check[] = [
  ...KERNEL_CHECKS,
  ...CLOCK_CHECKS,
  ...BALANCER_CHECKS,
  ...NETWORK_CHECKS,
  ...CNI_CHECKS,
  ...CLUSTER_NETWORK_CHECKS,
  ...AGENT_CHECKS,
  ...CREDENTIAL_CHECKS,
  ...POD_CHECKS,
  ...SIDECAR_CHECKS,
  ...PROBE_CHECKS,
  ...POLICY_CHECKS,
];

/** Every check, by category, in the order in which they run. */
export const CHECKS: readonly Check[] = CATEGORIES.flatMap((category) =>
  ALL.filter((one) => one.category === category),
);
