// SPDX-License-Identifier: Apache-2.0
// What the lists of all hooks are made of.

import { SIDECAR_PORT } from "../core/constants.ts";
import type { Family } from "../core/ip.ts";
import type { RedirectionAction, RedirectionMatch, RedirectionRule } from "../core/redirection.ts";

/** Source of Envoy's connections to the application where it keeps no client address. */
export const PASSTHROUGH = { 4: "127.0.0.6/32", 6: "::6/128" } as const;
/** Of 127.0.0.0/8 only this one counts as loopback: the pod's own check connects to 127.0.0.6. */
export const LOOPBACK = { 4: "127.0.0.1/32", 6: "::1/128" } as const;

export const leave: RedirectionAction = { kind: "leave" };
export const toOutbound: RedirectionAction = { kind: "redirect", port: SIDECAR_PORT.outbound };
export const toInbound: RedirectionAction = { kind: "redirect", port: SIDECAR_PORT.inbound };
export const toDns: RedirectionAction = { kind: "redirect", port: SIDECAR_PORT.dns };

/** One rule for each family, which tells them apart by its name. */
export function each(
  families: readonly Family[],
  name: string,
  match: (family: Family) => RedirectionMatch,
  action: RedirectionAction,
): RedirectionRule[] {
  return families.map((family) => ({ name: `${name}-v${family}`, match: { ...match(family), family }, action }));
}

/** A rule over a list, or none when nothing is in it. */
export function over<T>(values: readonly T[], rule: (values: readonly T[]) => RedirectionRule): RedirectionRule[] {
  return values.length === 0 ? [] : [rule(values)];
}
