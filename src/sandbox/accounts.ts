// SPDX-License-Identifier: Apache-2.0
import { randomBytes } from "node:crypto";
import { type Account, agentRules } from "./apiserver/access.ts";

export const SYSTEM_NAMESPACE = "istio-system";
export const ADMIN = "sandbox-admin";
export const AGENT = `system:serviceaccount:${SYSTEM_NAMESPACE}:istio-cni`;

/** The agent may do what our chart grants, which is less than istio-cni's does, and no more. */
export function accounts(rules: Account["rules"] = agentRules()): Account[] {
  return [
    { user: ADMIN, token: randomBytes(16).toString("hex"), rules: "admin" },
    {
      user: AGENT,
      token: randomBytes(16).toString("hex"),
      rules,
    },
  ];
}
