// SPDX-License-Identifier: Apache-2.0
// Ports that the kernel doesn't choose by itself in a pod's netns. ztunnel calls an application with its client's
// address and a port that it lets the kernel choose. With the port of a connection which that client has open since
// before the capture it would be that connection's 4-tuple: the application's end answers the SYN for the older
// one, and either the new connection hangs or the older one is reset.

import type { NativeBinding } from "../native/binding.ts";
import { isNativeError } from "../native/fault.ts";

const KEY = "net/ipv4/ip_local_reserved_ports";
const RANGE_KEY = "net/ipv4/ip_local_port_range";
/**
 * By these a list is ours, also to the next agent: the kernel chooses none so low, and nobody else has a reason to
 * reserve just them, each alone.
 */
const SIGNATURE: readonly number[] = [537, 539, 541];
/** The part of the range that may be reserved: the pod's own connections need ports too. */
const MAX_PART = 0.75;

interface Run {
  readonly first: number;
  readonly last: number;
}

/**
 * Reserves them in the netns, instead of those that were reserved so before; none of them gives the list back. A list
 * that is not ours stays as it is, and where sysctls can't be set nothing is reserved.
 */
export function reservePorts(binding: NativeBinding, netns: number, ports: readonly number[]): void {
  const there = binding.sysctlGet(netns, KEY).trim();
  if (there === "" ? ports.length === 0 : !isOurs(there)) return;
  const [first = 0, last = 0] = binding.sysctlGet(netns, RANGE_KEY).trim().split(/\s+/).map(Number);
  const text = reservedText(ports, { first, last });
  if (text === there) return;
  try {
    // An empty write is none.
    binding.sysctlSet(netns, KEY, text === "" ? "\n" : text);
  } catch (error) {
    if (!isNativeError(error, "EROFS", "EPERM", "EACCES")) throw error;
  }
}

/** As `reservePorts` without any, but nothing stands in the way of what comes after it. */
export function giveBackPorts(binding: NativeBinding, netns: number): void {
  try {
    reservePorts(binding, netns, []);
  } catch (error) {
    if (!isNativeError(error)) throw error;
  }
}

/** Those that are reserved, as the kernel shows them but for what makes the list ours; undefined when it is not ours. */
export function reservedPorts(binding: NativeBinding, netns: number): string | undefined {
  const list = binding.sysctlGet(netns, KEY).trim();
  if (list === "" || !isOurs(list)) return undefined;
  return list
    .split(",")
    .filter((run) => !SIGNATURE.includes(Number(run)))
    .join(",");
}

/** The list as the kernel shows it: "" when none of the ports is in the range that it chooses from. Pure. */
export function reservedText(ports: readonly number[], range: Run): string {
  const alone = (port: number) => SIGNATURE.every((one) => Math.abs(one - port) > 1);
  const chosen = ports.filter((port) => port >= range.first && port <= range.last && alone(port));
  if (chosen.length === 0) return "";
  let left = Math.floor((range.last - range.first + 1) * MAX_PART);
  const within = runsOf(chosen).flatMap(({ first, last }) => {
    const end = Math.min(last, first + left - 1);
    left -= Math.max(0, end - first + 1);
    return end < first ? [] : [{ first, last: end }];
  });
  const all = [...runsOf(SIGNATURE), ...within].sort((a, b) => a.first - b.first);
  return joined(all)
    .map(({ first, last }) => (first === last ? `${first}` : `${first}-${last}`))
    .join(",");
}

function runsOf(ports: readonly number[]): Run[] {
  return joined([...ports].sort((a, b) => a - b).map((port) => ({ first: port, last: port })));
}

/** Runs in the order of their beginnings, neighbours made one. */
function joined(runs: readonly Run[]): Run[] {
  const result: Run[] = [];
  for (const run of runs) {
    const before = result.at(-1);
    if (before !== undefined && run.first <= before.last + 1) {
      result[result.length - 1] = { first: before.first, last: Math.max(before.last, run.last) };
    } else result.push(run);
  }
  return result;
}

function isOurs(text: string): boolean {
  const runs = text.split(",");
  return SIGNATURE.every((port) => runs.includes(String(port)));
}
