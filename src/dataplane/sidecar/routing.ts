// SPDX-License-Identifier: Apache-2.0
// What a redirection needs besides rules: an address on lo, and in TPROXY mode `ip rule fwmark 1337 lookup
// 133` with `local default dev lo`. Upstream's istio-iptables adds the same.
import { SIDECAR_RULE_PRIORITY } from "../../core/constants.ts";
import { codeOf } from "../../core/errors.ts";
import { type Family, familyOf } from "../../core/ip.ts";
import type { Redirection } from "../../core/redirection.ts";
import type { NativeBinding, RouteSpec, RuleSpec } from "../../native/binding.ts";
import { raiseLoopback } from "../routes.ts";

/** lo is the first interface of every netns. */
const LO_INDEX = 1;
const ALL_BITS = 0xffffffff;

/**
 * Adds what is missing, and returns how to take that away again.
 * @throws NativeError; what was added before is removed.
 */
export function addRouting(binding: NativeBinding, netns: number, redirection: Redirection): () => void {
  const undo: (() => void)[] = [];
  const remove = () => {
    for (const step of undo.splice(0).reverse()) ignoring(["ESRCH", "ENOENT", "EADDRNOTAVAIL"], step);
  };
  const add = (apply: () => void, inverse: () => void) => {
    if (!ignoring(["EEXIST"], apply)) undo.push(inverse);
  };
  raiseLoopback(binding, netns);
  try {
    for (const address of redirection.loopback) {
      const prefix = familyOf(address) === 4 ? 32 : 128;
      add(
        () => binding.addressAdd(netns, "lo", address, prefix),
        () => binding.addressDelete(netns, "lo", address, prefix),
      );
    }
    for (const [route, rule] of delivery(redirection)) {
      if (!hasRoute(binding, netns, route)) {
        add(
          () => binding.routeReplace(netns, route),
          () => binding.routeDelete(netns, route),
        );
      }
      if (!hasRule(binding, netns, rule)) {
        add(
          () => binding.ruleAdd(netns, rule),
          () => binding.ruleDelete(netns, rule),
        );
      }
    }
  } catch (error) {
    remove();
    throw error;
  }
  return remove;
}

/** Sentences about what is not there. */
export function missingRouting(binding: NativeBinding, netns: number, redirection: Redirection): string[] {
  const missing: string[] = [];
  const onLo = binding.addresses(netns).filter(({ ifindex }) => ifindex === LO_INDEX);
  for (const address of redirection.loopback) {
    if (!onLo.some((found) => found.address === address)) missing.push(`lo has no address ${address}`);
  }
  for (const [route, rule] of delivery(redirection)) {
    const { family, table } = rule;
    if (!hasRule(binding, netns, rule)) {
      missing.push(`IPv${family} policy rule fwmark ${rule.fwmark} lookup ${table} is missing`);
    }
    if (!hasRoute(binding, netns, route))
      missing.push(`IPv${family} route local default dev lo table ${table} is missing`);
  }
  return missing;
}

/** Removes all of it. What is gone already is no error. */
export function removeRouting(binding: NativeBinding, netns: number, redirection: Redirection): void {
  for (const [route, rule] of delivery(redirection)) {
    if (hasRule(binding, netns, rule)) ignoring(["ENOENT"], () => binding.ruleDelete(netns, rule));
    if (hasRoute(binding, netns, route)) ignoring(["ESRCH"], () => binding.routeDelete(netns, route));
  }
  const onLo = binding.addresses(netns).filter(({ ifindex }) => ifindex === LO_INDEX);
  for (const address of redirection.loopback) {
    const found = onLo.find((one) => one.address === address);
    if (found === undefined) continue;
    ignoring(["EADDRNOTAVAIL"], () => binding.addressDelete(netns, "lo", address, found.prefix));
  }
}

function delivery({ deliver, families }: Redirection): (readonly [RouteSpec, RuleSpec])[] {
  if (deliver === undefined) return [];
  const { mark, table } = deliver;
  return families.map((family) => [
    { family, table, type: "local", dst: anywhere(family), prefix: 0, oif: LO_INDEX, scope: "host" },
    { family, priority: SIDECAR_RULE_PRIORITY, table, fwmark: mark, fwmask: ALL_BITS },
  ]);
}

function anywhere(family: Family): string {
  return family === 4 ? "0.0.0.0" : "::";
}

function hasRule(binding: NativeBinding, netns: number, rule: RuleSpec): boolean {
  return binding.rules(netns, rule.family).some(({ table, fwmark }) => table === rule.table && fwmark === rule.fwmark);
}

function hasRoute(binding: NativeBinding, netns: number, route: RouteSpec): boolean {
  return binding
    .routes(netns, route.family, route.table)
    .some(({ type, prefix, oif }) => type === "local" && prefix === 0 && oif === LO_INDEX);
}

/** True when the action failed with one of these codes. */
function ignoring(codes: readonly string[], action: () => void): boolean {
  try {
    action();
    return false;
  } catch (error) {
    if (codes.includes(codeOf(error))) return true;
    throw error;
  }
}
