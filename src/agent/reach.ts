// SPDX-License-Identifier: Apache-2.0
import type { Pod } from "../core/pod.ts";
import type { NetnsHandle } from "../core/ports/netns.ts";
import type { Parts } from "./parts.ts";
import type { Roster } from "./roster.ts";

/** In the pod's netns that is held, or else in the one that /proc shows now; undefined: there is none. */
export async function withinNetns<T>(
  { finder }: Pick<Parts, "finder">,
  roster: Roster,
  pod: Pod,
  act: (netns: NetnsHandle) => T | Promise<T>,
): Promise<T | undefined> {
  const held = roster.get(pod.uid)?.netns;
  if (held !== undefined) return await act(held);
  if (pod.hostNetwork) return undefined;
  const found = (await finder.find([pod])).get(pod.uid);
  if (found === undefined) return undefined;
  try {
    return await act(found);
  } finally {
    found.close();
  }
}
