// SPDX-License-Identifier: Apache-2.0
import { AgentError } from "../core/errors.ts";
import { type Pod, podKey } from "../core/pod.ts";
import type { ManualClaim } from "../core/ports/manual.ts";
import type { NetnsHandle } from "../core/ports/netns.ts";
import { eligibilityOf } from "./desire.ts";
import type { Parts } from "./parts.ts";
import type { Roster } from "./roster.ts";

/** Experiments of one node at a time. */
const MAX_CLAIMS = 64;

/** What may be captured by hand: nothing of a pod's, of anybody's address, or of ours already. */
export class ManualTerms {
  constructor(
    private readonly parts: Parts,
    private readonly roster: Roster,
  ) {}

  /** @throws AgentError MANUAL_* | NETNS_OF_POD */
  async require(claim: ManualClaim, netns: NetnsHandle): Promise<void> {
    const { cluster, finder, dataplane } = this.parts;
    if ([...this.roster.all()].filter(({ manual }) => manual !== undefined).length >= MAX_CLAIMS) {
      throw new AgentError("MANUAL_TOO_MANY", `${MAX_CLAIMS} network namespaces are captured by hand already`);
    }
    if (this.roster.get(claim.uid) !== undefined) {
      throw new AgentError("MANUAL_EXISTS", `${claim.netns} is captured by hand already`, "unenroll it first");
    }
    await this.requireUnowned(netns);
    const namesake = [...cluster.pods()].find(
      ({ ips, hostNetwork }) => !hostNetwork && ips.some((ip) => claim.ips.includes(ip)),
    );
    if (namesake !== undefined) {
      throw new AgentError("MANUAL_ADDRESS", `${claim.ips.join(", ")}: an address of pod ${podKey(namesake)}`);
    }
    const missing = finder.missing(netns, claim.ips);
    if (missing.length > 0) {
      throw new AgentError("MANUAL_ADDRESS", `no interface of ${claim.netns} has the address ${missing.join(", ")}`);
    }
    if (dataplane.present(netns)) {
      throw new AgentError(
        "MANUAL_NOT_CLEAN",
        `something of ours, or of istio-cni's, is in ${claim.netns}`,
        `\`ambient-cni unenroll --netns ${claim.netns}\` removes it`,
      );
    }
  }

  /** @throws AgentError NETNS_OF_POD with what its labels say. */
  async requireUnowned(netns: NetnsHandle): Promise<void> {
    const { cluster, config } = this.parts;
    const pod = await this.#ownerOf(netns);
    if (pod === undefined) return;
    const { verdict, detail } = eligibilityOf(config, cluster, pod);
    const says = verdict === "ambient" ? "puts it in the mesh" : "keeps it out of the mesh";
    throw new AgentError(
      "NETNS_OF_POD",
      `this network namespace is pod ${podKey(pod)}'s, and what decides about it ${says}: ${detail}`,
      "change the labels of the pod or of its namespace: they are the only truth about a pod",
    );
  }

  async #ownerOf(netns: NetnsHandle): Promise<Pod | undefined> {
    const { cluster, finder } = this.parts;
    for (const { netns: held, pod, manual } of this.roster.all()) {
      if (manual === undefined && held?.id === netns.id) return pod;
    }
    const found = await finder.find([...cluster.pods()]);
    const owner = [...found].find(([, { id }]) => id === netns.id)?.[0];
    for (const handle of found.values()) handle.close();
    return owner === undefined ? undefined : cluster.pod(owner);
  }
}
