// SPDX-License-Identifier: Apache-2.0
// What is in a netns, read without knowing what should be: for those who look while no agent runs. No
// engine is started and nothing is written.
import { POD_TABLE } from "../core/constants.ts";
import { codeOf } from "../core/errors.ts";
import type { EngineName } from "../core/ports/dataplane.ts";
import type { NativeBinding } from "../native/binding.ts";
import type { Pinned } from "./ebpf/pinned.ts";
import { modeOf } from "./ebpf/pod.ts";
import { hasOwned, readTables } from "./iptables/kernel.ts";
import { stateComment } from "./iptables/observe.ts";
import { CAPTURE, VARIANTS } from "./iptables/ruleset.ts";
import { parseState as parseRules } from "./iptables/state.ts";
import type { PlanMode } from "./netfilter/mode.ts";
import { parseState as parseTable } from "./nftables/state.ts";

const LO_INDEX = 1;

/** Steering of ours in a netns. */
export interface Trace {
  readonly engine: EngineName;
  /** undefined: it does not say, or in another version's words. */
  readonly mode: PlanMode | undefined;
}

/** Every engine that has something in the netns. @throws NativeError */
export function tracesOf(binding: NativeBinding, netns: number, { pods }: Pinned): readonly Trace[] {
  const traces: Trace[] = [];
  const pod = pods.get(binding.netnsCookie(netns));
  if (pod !== undefined) traces.push({ engine: "ebpf", mode: modeOf(pod) });
  else if (binding.bpfFilterState(netns, LO_INDEX).ingress !== 0) traces.push({ engine: "ebpf", mode: undefined });
  const table = nftTables(binding, netns).includes(`inet ${POD_TABLE}`)
    ? binding.nftTable(netns, "inet", POD_TABLE)
    : undefined;
  if (table !== undefined) traces.push({ engine: "nftables", mode: parseTable(table.comment)?.mode });
  const rules = VARIANTS.map((variant) => readTables(binding, netns, variant)).find((tables) =>
    hasOwned(CAPTURE, tables),
  );
  if (rules !== undefined) {
    const comment = stateComment(CAPTURE, rules);
    traces.push({ engine: "iptables", mode: comment === undefined ? undefined : parseRules(comment)?.mode });
  }
  return traces;
}

function nftTables(binding: NativeBinding, netns: number): string[] {
  try {
    return binding.nftTables(netns);
  } catch (error) {
    // A kernel without nf_tables.
    if (codeOf(error) === "EOPNOTSUPP") return [];
    throw error;
  }
}
