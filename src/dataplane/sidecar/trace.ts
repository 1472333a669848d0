// SPDX-License-Identifier: Apache-2.0
// A redirection, read without knowing what it should be: for those who look while no agent runs.
import { SIDECAR_TABLE } from "../../core/constants.ts";
import type { EngineName } from "../../core/ports/dataplane.ts";
import type { NetnsHandle } from "../../core/ports/netns.ts";
import type { NativeBinding } from "../../native/binding.ts";
import { readTables } from "../iptables/kernel.ts";
import { VARIANTS } from "../iptables/ruleset.ts";
import { tableNames } from "../netfilter/tables.ts";
import { foreignRedirection, isOurs } from "./foreign.ts";

export interface RedirectionTrace {
  readonly engine: EngineName;
  /** False: somebody else has written it. */
  readonly ours: boolean;
}

/** undefined: nothing redirects the pod into a sidecar. Upstream's ambient capture must have been ruled out. No fork. */
export function redirectionTrace(binding: NativeBinding, netns: NetnsHandle): RedirectionTrace | undefined {
  if (tableNames(binding, netns.fd).includes(`inet ${SIDECAR_TABLE}`)) return { engine: "nftables", ours: true };
  const foreign = foreignRedirection(binding, netns);
  if (foreign !== undefined) return { engine: foreign, ours: false };
  const ours = VARIANTS.some((variant) => isOurs(readTables(binding, netns.fd, variant)));
  return ours ? { engine: "iptables", ours: true } : undefined;
}
