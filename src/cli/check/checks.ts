// SPDX-License-Identifier: Apache-2.0
import { AGENT_CHECKS } from "./agent.ts";
import { CATEGORIES, type Check } from "./check.ts";
import { CNI_CHECKS } from "./cni.ts";
import { KERNEL_CHECKS } from "./kernel.ts";
import { POD_CHECKS } from "./pods.ts";

const ALL: readonly Check[] = [...KERNEL_CHECKS, ...CNI_CHECKS, ...AGENT_CHECKS, ...POD_CHECKS];

/** Every check, by category, in the order in which they run. */
export const CHECKS: readonly Check[] = CATEGORIES.flatMap((category) =>
  ALL.filter((one) => one.category === category),
);
