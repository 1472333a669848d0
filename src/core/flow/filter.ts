// SPDX-License-Identifier: Apache-2.0
import { inCidr } from "../ip.ts";
import type { FlowLine, FlowRecord } from "./line.ts";
import type { FlowDirection } from "./words.ts";

/** Every condition that is given must hold; of its several values, one. */
export interface FlowFilter {
  /** `[namespace/]name`, a uid, or the beginning of one. */
  readonly pods: readonly string[];
  readonly namespaces: readonly string[];
  /** Verdicts or reasons. */
  readonly verdicts: readonly string[];
  readonly direction: FlowDirection | undefined;
  /** Canonical CIDRs. */
  readonly sources: readonly string[];
  readonly destinations: readonly string[];
  /** Of either end. */
  readonly ports: readonly number[];
}

/** Whether a line is to be shown. What is lost or blind always is: nobody knows what it was. */
export function isWanted(line: FlowLine, filter: FlowFilter): boolean {
  switch (line.type) {
    case "flow":
      return isOf(line, filter) && isSuch(line, filter);
    case "counts":
      // Sums: what they are of can't be told by verdict or address.
      return isOf(line, filter) && !asksForSingleFlows(filter);
    default:
      return true;
  }
}

function isOf({ pod, uid }: Pick<FlowRecord, "pod" | "uid">, { pods, namespaces }: FlowFilter): boolean {
  const [namespace = "", name = ""] = pod?.split("/") ?? [];
  const names = [pod ?? "", name, uid ?? ""];
  return (
    (pods.length === 0 || pods.some((wanted) => names.some((one) => one.startsWith(wanted)))) &&
    (namespaces.length === 0 || namespaces.includes(namespace))
  );
}

function isSuch(flow: FlowRecord, filter: FlowFilter): boolean {
  const { verdicts, direction, sources, destinations, ports } = filter;
  return (
    (verdicts.length === 0 || verdicts.includes(flow.verdict) || verdicts.includes(flow.reason)) &&
    (direction === undefined || flow.direction === direction) &&
    (sources.length === 0 || sources.some((cidr) => inCidr(flow.source, cidr))) &&
    (destinations.length === 0 || destinations.some((cidr) => inCidr(flow.destination, cidr))) &&
    (ports.length === 0 || ports.some((port) => port === flow.destinationPort || port === flow.sourcePort))
  );
}

function asksForSingleFlows({ verdicts, direction, sources, destinations, ports }: FlowFilter): boolean {
  return direction !== undefined || [verdicts, sources, destinations, ports].some((one) => one.length > 0);
}
