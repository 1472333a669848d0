// SPDX-License-Identifier: Apache-2.0
// A captured pod by its pins, for who looks while no agent runs: whether what they stand for is in the netns.
import type { KernelFact } from "../../core/ports/dataplane.ts";
import type { NativeBinding } from "../../native/binding.ts";
import { podInterface } from "./attachments.ts";
import { missingLocalRoutes } from "./local-routes.ts";
import type { Pinned } from "./pinned.ts";
import { modeOf } from "./pod.ts";

const LO_INDEX = 1;

/** None for a pod that another engine captures, or that is let go. @throws NativeError */
export function pinnedFacts(binding: NativeBinding, netns: number, pinned: Pinned): readonly KernelFact[] {
  const pod = pinned.pods.get(binding.netnsCookie(netns));
  if (pod === undefined) return binding.bpfFilterState(netns, LO_INDEX).ingress === 0 ? [] : [unpinned(pinned)];
  if (modeOf(pod) !== "captured") return [];
  const link = podInterface(binding, netns);
  const missing = [
    ...(binding.bpfNetnsLinked(netns) ? [] : ["the sk_lookup program is not attached"]),
    ...(link === undefined ? ["it has no single interface"] : missingFilters(binding, netns, link)),
    ...missingFilters(binding, netns, { name: "lo", index: LO_INDEX }, ["ingress"]),
    ...missingLocalRoutes(binding, netns, pod),
  ];
  if (missing.length > 0) return missing.map((text) => ({ name: "capture", ok: false, text }));
  return [{ name: "capture", ok: true, text: "ebpf: what its entry stands for is attached" }];
}

/** Its filters are there, and nobody knows of it. */
function unpinned({ obstacle }: Pinned): KernelFact {
  const name = "capture";
  if (obstacle !== undefined) return { name, ok: null, text: `ebpf: what is pinned can't be read: ${obstacle}` };
  const text = "ebpf: its filters are there and no entry of it is pinned: somebody removed the pins";
  return { name, ok: false, text: `${text}, or an agent of a very different version captured it` };
}

function missingFilters(
  binding: NativeBinding,
  netns: number,
  { name, index }: { readonly name: string; readonly index: number },
  directions: readonly ("ingress" | "egress")[] = ["ingress", "egress"],
): string[] {
  const state = binding.bpfFilterState(netns, index);
  return directions
    .filter((direction) => state[direction] === 0)
    .map((direction) => `the TC ${direction} filter of ${name} is missing`);
}
