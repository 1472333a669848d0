// SPDX-License-Identifier: Apache-2.0
import { codeOf } from "../core/errors.ts";

/** Exit statuses that scripts may rely on. */
export const EXIT = { ok: 0, problem: 1, usage: 2, unreachable: 3, denied: 4 } as const;

/** Set when the bundle is made. */
export const VERSION = process.env.AMBIENT_CNI_VERSION ?? "0.0.0-dev";

const STATUS: Readonly<Record<string, number>> = {
  USAGE: EXIT.usage,
  AGENT_UNREACHABLE: EXIT.unreachable,
  NEEDS_AGENT: EXIT.unreachable,
  NOT_PERMITTED: EXIT.denied,
  // The node's own processes may not be read.
  PROC_UNREADABLE: EXIT.denied,
  HOST_NETNS_UNKNOWN: EXIT.denied,
  EPERM: EXIT.denied,
  EACCES: EXIT.denied,
};

/** Exit status for anything that a command threw. */
export function exitOf(error: unknown): number {
  return STATUS[codeOf(error)] ?? EXIT.problem;
}
