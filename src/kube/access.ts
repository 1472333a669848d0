// SPDX-License-Identifier: Apache-2.0
// All that the agent asks of the API server. The chart grants exactly this (install/chart/templates/rbac.yaml),
// the playground's API server allows no more, and test/unit/kube/access.test.ts sees that all of it is used.
import { AGENT_DAEMONSET } from "../core/constants.ts";

export interface Permission {
  /** API group; empty for the core group. */
  readonly group: string;
  /** As RBAC names it: `pods`, `pods/status`. */
  readonly resource: string;
  readonly verbs: readonly ("get" | "list" | "watch" | "create" | "patch" | "delete")[];
  /** Only the object of this name. */
  readonly name?: string;
}

export const PERMISSIONS: readonly Permission[] = [
  { group: "", resource: "pods", verbs: ["get", "list", "watch"] },
  { group: "", resource: "namespaces", verbs: ["list", "watch"] },
  { group: "", resource: "nodes", verbs: ["get"] },
  { group: "", resource: "pods/status", verbs: ["patch"] },
  { group: "", resource: "events", verbs: ["create", "patch"] },
  { group: "apps", resource: "daemonsets", verbs: ["get"], name: AGENT_DAEMONSET },
];

/** Needed only where REPAIR_DELETE_PODS is true. */
export const DELETION: Permission = { group: "", resource: "pods", verbs: ["delete"] };

/**
 * Nobody grants it by default: the agent itself never asks. `ambient-cni check` does, by hand, and says that it
 * does not know (AMB-413) where it may not.
 */
export const POLICIES: Permission = { group: "networking.k8s.io", resource: "networkpolicies", verbs: ["list"] };
