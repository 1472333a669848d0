// SPDX-License-Identifier: Apache-2.0
// Policy routing in the pod: packets marked 0x111/0xfff are delivered locally. Upstream's istio-cni
// writes the same rule and routes with the same numbers.
import { LOCAL_MARK, MARK_MASK, ROUTE_TABLE, RULE_PRIORITY } from "../core/constants.ts";
import { codeOf } from "../core/errors.ts";
import type { AddressFamily, NativeBinding, RouteSpec, RuleSpec } from "../native/binding.ts";
import { routeText, ruleText } from "./routing-text.ts";

/** RFC 3549 numbers that rtnetlink uses: lo is the first interface of every netns. */
const LO_INDEX = 1;

function rule(family: AddressFamily): RuleSpec {
  return { family, priority: RULE_PRIORITY, table: ROUTE_TABLE, fwmark: LOCAL_MARK, fwmask: MARK_MASK };
}

function route(family: AddressFamily): RouteSpec {
  const dst = family === 4 ? "0.0.0.0" : "::";
  return { family, table: ROUTE_TABLE, type: "local", dst, prefix: 0, oif: LO_INDEX, scope: "host" };
}

/**
 * Families that need policy routing in this netns. IPv6 is left out where the node says so and where
 * lo has it disabled: there the kernel refuses the route, and nothing answers on ::1.
 */
export function families(binding: NativeBinding, netns: number, ipv6: boolean): readonly AddressFamily[] {
  return ipv6 && ipv6Enabled(binding, netns) ? [4, 6] : [4];
}

export function ipv6Enabled(binding: NativeBinding, netns: number): boolean {
  try {
    return binding.sysctlGet(netns, "net/ipv6/conf/lo/disable_ipv6").trim() === "0";
  } catch (error) {
    // A kernel without IPv6.
    if (codeOf(error) === "ENOENT") return false;
    throw error;
  }
}

/**
 * Adds what is missing, each family by itself. Returns the families whose rule it added, for
 * `removeRouting`: where the rule was there, somebody before us is still to be cleaned up after.
 */
export function addRouting(
  binding: NativeBinding,
  netns: number,
  wanted: readonly AddressFamily[],
): readonly AddressFamily[] {
  const added: AddressFamily[] = [];
  raiseLoopback(binding, netns);
  try {
    for (const family of wanted) {
      // The rule first: until something marks packets it changes nothing, and whoever comes after a
      // kill knows by it that this netns is ours to clean. A rule alone falls through to the main table.
      if (addedRule(binding, netns, family)) added.push(family);
      binding.routeReplace(netns, route(family));
    }
  } catch (error) {
    removeRouting(binding, netns, added);
    throw error;
  }
  return added;
}

/**
 * Sets lo up. containerd runs its loopback plugin beside the chain, not before it, so that in an ADD lo may still
 * be down: then the kernel refuses IPv6 routes through it (ENETDOWN). Up is where it is about to go, so nothing undoes this.
 */
export function raiseLoopback(binding: NativeBinding, netns: number): void {
  binding.linkUp(netns, "lo");
}

/** False when an equal rule was there. The kernel compares: no dump is needed. */
function addedRule(binding: NativeBinding, netns: number, family: AddressFamily): boolean {
  try {
    binding.ruleAdd(netns, rule(family));
    return true;
  } catch (error) {
    if (codeOf(error) === "EEXIST") return false;
    throw error;
  }
}

/** What `addRouting` would write. Pure. */
export function plannedRouting(wanted: readonly AddressFamily[]): readonly string[] {
  return wanted.flatMap((family) => [ruleText(rule(family)), routeText(route(family), "lo")]);
}

/** Sentences about what is not there. */
export function missingRouting(binding: NativeBinding, netns: number, wanted: readonly AddressFamily[]): string[] {
  const missing: string[] = [];
  for (const family of wanted) {
    if (!hasRule(binding, netns, family)) {
      missing.push(`IPv${family} policy rule ${RULE_PRIORITY} (fwmark 0x111/0xfff lookup ${ROUTE_TABLE}) is missing`);
    }
    if (!hasRoute(binding, netns, family)) {
      missing.push(`IPv${family} route local default dev lo table ${ROUTE_TABLE} is missing`);
    }
  }
  return missing;
}

/** Families whose rule is there though nothing of them is captured: left from other settings of the node. */
export function needlessRouting(
  binding: NativeBinding,
  netns: number,
  wanted: readonly AddressFamily[],
): readonly AddressFamily[] {
  return ([4, 6] as const).filter((family) => !wanted.includes(family) && hasRule(binding, netns, family));
}

/** True when the rule of any family is there: it is the first thing we write and the last we remove. */
export function routingPresent(binding: NativeBinding, netns: number): boolean {
  return ([4, 6] as const).some((family) => hasRule(binding, netns, family));
}

/** Removes route and rule, in this order. What is gone already is no error. */
export function removeRouting(binding: NativeBinding, netns: number, from: readonly AddressFamily[] = [4, 6]): void {
  for (const family of from) {
    if (hasRoute(binding, netns, family)) ignoring("ESRCH", () => binding.routeDelete(netns, route(family)));
    if (hasRule(binding, netns, family)) ignoring("ENOENT", () => binding.ruleDelete(netns, rule(family)));
  }
}

function hasRule(binding: NativeBinding, netns: number, family: AddressFamily): boolean {
  return dump(() => binding.rules(netns, family)).some(
    (found) =>
      found.priority === RULE_PRIORITY &&
      found.table === ROUTE_TABLE &&
      found.fwmark === LOCAL_MARK &&
      found.fwmask === MARK_MASK,
  );
}

function hasRoute(binding: NativeBinding, netns: number, family: AddressFamily): boolean {
  return dump(() => binding.routes(netns, family, ROUTE_TABLE)).some(
    (found) => found.type === "local" && found.prefix === 0 && found.oif === LO_INDEX,
  );
}

/** A kernel booted with ipv6.disable=1 knows no such family. */
function dump<T>(read: () => T[]): T[] {
  try {
    return read();
  } catch (error) {
    if (["EAFNOSUPPORT", "EOPNOTSUPP"].includes(codeOf(error))) return [];
    throw error;
  }
}

function ignoring(code: string, action: () => void): void {
  try {
    action();
  } catch (error) {
    if (codeOf(error) !== code) throw error;
  }
}
