// SPDX-License-Identifier: Apache-2.0
import { familyOf, inCidr } from "./ip.ts";
import type { RedirectionAction, RedirectionMatch, RedirectionRule } from "./redirection.ts";

/** The first TCP packet of a connection; it has no mark. */
export interface NewConnection {
  readonly source: string;
  readonly destination: string;
  readonly port: number;
  /** Interface it has come by, or leaves by. */
  readonly from?: string | undefined;
  readonly to?: string | undefined;
  /** Owner of the socket; undefined where it has come from outside. */
  readonly uid?: number;
  readonly gid?: number;
}

export type Decision = Exclude<RedirectionAction, { readonly kind: "mark" }>;

const NO_MARK = 0;

/** What the rules of one hook do with it; undefined: none decides, so it is left alone. */
export function decide(rules: readonly RedirectionRule[], connection: NewConnection): Decision | undefined {
  for (const { match, action } of rules) {
    if (action.kind !== "mark" && matches(match, connection)) return action;
  }
  return undefined;
}

function matches(match: RedirectionMatch, connection: NewConnection): boolean {
  const { source, destination, port, from, to, uid, gid } = connection;
  return (
    isOr(match.family, familyOf(destination)) &&
    isOr(match.protocol, "tcp") &&
    isAmong(match.from, from) &&
    isAmong(match.to, to) &&
    (match.source === undefined || inCidr(source, match.source)) &&
    (match.destinations?.some((cidr) => inCidr(destination, cidr)) ?? true) &&
    (match.notDestination === undefined || !inCidr(destination, match.notDestination)) &&
    isAmong(match.ports, port) &&
    !match.notPorts?.includes(port) &&
    isOr(match.uid, uid) &&
    isOther(match.notUid === undefined ? undefined : [match.notUid], uid) &&
    isOr(match.gid, gid) &&
    isOther(match.notGids, gid) &&
    isOr(match.mark, NO_MARK) &&
    match.notMark !== NO_MARK &&
    isOr(match.connectionMark, NO_MARK) &&
    match.state === undefined
  );
}

const isOr = <T>(wanted: T | undefined, value: T | undefined) => wanted === undefined || wanted === value;

const isAmong = <T>(wanted: readonly T[] | undefined, value: T | undefined) =>
  wanted === undefined || (value !== undefined && wanted.includes(value));

/** What has no owner is neither somebody's nor somebody else's. */
const isOther = <T>(unwanted: readonly T[] | undefined, value: T | undefined) =>
  unwanted === undefined || (value !== undefined && !unwanted.includes(value));
