// SPDX-License-Identifier: Apache-2.0
// One pod, without the agent: what is in its netns. What should be there is only partly known.
import { AgentError } from "../../../core/errors.ts";
import type { CaptureSpec } from "../../../core/ports/dataplane.ts";
import type { InspectReport } from "../../../core/report/inspect.ts";
import { type PodReport, podTitle } from "../../../core/report/pods.ts";
import type { ProofsReport } from "../../../core/report/proofs.ts";
import { readPinned } from "../../../dataplane/ebpf/pinned.ts";
import { pinnedFacts } from "../../../dataplane/ebpf/pinned-facts.ts";
import { kernelFacts, listenerFacts } from "../../../dataplane/examine.ts";
import { PodProver } from "../../../dataplane/proof/prover.ts";
import { findHostNetns } from "../../../netns/host.ts";
import { findResidents, type Resident } from "../../../netns/residents.ts";
import { joinCgroupOf } from "../../../sys/own-cgroup.ts";
import { Proc } from "../../../sys/proc.ts";
import type { NodeView } from "./node-view.ts";
import { rowsOf } from "./pods.ts";

const SIDECAR_UNKNOWN = "which traffic it should be, its annotations say, and only the agent knows them";

export async function kernelInspect(view: NodeView, uid: string): Promise<InspectReport> {
  return within(view, uid, (pod, { netns }) => ({
    ...view.head(),
    pod,
    identity: null,
    eligibility: null,
    desired: {},
    facts: [
      ...pinnedFacts(view.binding, netns.fd, readPinned(view.binding, view.config.procDir)),
      ...(pod.mesh === "captured" ? listenerFacts(view.binding, netns.fd, view.config.dnsCapture) : []),
      ...kernelFacts(view.binding, netns, undefined, undefined),
    ],
    counters: {},
    existing: null,
    decisions: [],
  }));
}

/** As the node's settings say: the pod's own annotations are known to the API only. */
export async function kernelVerify(view: NodeView, uid: string): Promise<ProofsReport> {
  const { config, binding } = view;
  const { handle: host } = findHostNetns(new Proc(config.procDir), false);
  try {
    return await within(view, uid, async (pod, { netns, pid }) => {
      const head = { ...view.head(), uid, pod: podTitle(pod) };
      if (pod.mesh === "sidecar") return { ...head, proofs: [], problem: `${pod.detail}; ${SIDECAR_UNKNOWN}` };
      if (pod.mesh !== "captured") return { ...head, proofs: [], problem: `not captured: ${pod.detail}` };
      // In the agent's pod this process is in a cgroup that the hooks cover; on the node itself it is in none.
      if (config.hostRoot === "/") joinCgroupOf(config.procDir, pid);
      const prover = new PodProver({ binding, host, probesFromHost: config.probeSources === "host" });
      return { ...head, proofs: await prover.prove(netns, specOf(view, pod)), problem: null };
    });
  } finally {
    host.close();
  }
}

async function within<T>(
  view: NodeView,
  uid: string,
  act: (pod: PodReport, resident: Resident) => T | Promise<T>,
): Promise<T> {
  const residents = await findResidents(view.config.procDir);
  try {
    const resident = residents.find(({ podUid, containerId }) => (podUid ?? containerId) === uid);
    const [pod] = resident === undefined ? [] : rowsOf(view, [resident]);
    if (pod === undefined || resident === undefined) {
      throw new AgentError("POD_NOT_FOUND", `no process of pod ${uid} is on this node`);
    }
    return await act(pod, resident);
  } finally {
    for (const { netns } of residents) netns.close();
  }
}

function specOf({ config }: NodeView, pod: PodReport): CaptureSpec {
  return {
    uid: pod.uid,
    pod: podTitle(pod),
    ips: pod.ips,
    ipv6: config.ipv6,
    dnsCapture: config.dnsCapture,
    dnsServers: undefined,
    bypassInbound: false,
    rerouteInterfaces: [],
    excludeOutboundCidrs: config.excludeOutboundCidrs,
    probeIpv4: config.probeIpv4,
    probeIpv6: config.probeIpv6,
  };
}
