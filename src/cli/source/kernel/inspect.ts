// SPDX-License-Identifier: Apache-2.0
// One pod, without the agent: what is in its netns. What should be there is only partly known.
import { AgentError } from "../../../core/errors.ts";
import { familyOf } from "../../../core/ip.ts";
import type { CaptureSpec, KernelFact } from "../../../core/ports/dataplane.ts";
import type { InspectReport } from "../../../core/report/inspect.ts";
import { type PodReport, podTitle } from "../../../core/report/pods.ts";
import type { ProofsReport } from "../../../core/report/proofs.ts";
import { type Pinned, readPinned } from "../../../dataplane/ebpf/pinned.ts";
import { pinnedFacts } from "../../../dataplane/ebpf/pinned-facts.ts";
import { kernelFacts, listenerFacts, routingFacts } from "../../../dataplane/examine.ts";
import { PodProver } from "../../../dataplane/proof/prover.ts";
import { writtenFacts } from "../../../dataplane/written.ts";
import type { NativeBinding } from "../../../native/binding.ts";
import { findHostNetns } from "../../../netns/host.ts";
import type { Resident } from "../../../netns/residents.ts";
import { joinCgroupOf } from "../../../sys/own-cgroup.ts";
import { Proc } from "../../../sys/proc.ts";
import type { NodeView } from "./node-view.ts";
import { isAstray, rowsOf } from "./pods.ts";
import { type Steering, steeringIn, untried } from "./steering.ts";

const SIDECAR_UNKNOWN = "which traffic it should be, its annotations say, and only the agent knows them";

export async function kernelInspect(view: NodeView, uid: string): Promise<InspectReport> {
  const { binding } = view;
  return within(view, uid, (pod, { netns }) => {
    const pinned = readPinned(binding, view.config.procDir);
    return {
      ...view.head(),
      pod,
      identity: null,
      eligibility: null,
      desired: {},
      facts: [
        ...pinnedFacts(binding, netns.fd, pinned),
        ...(pod.mesh === "captured" ? capturedFacts(binding, netns.fd, pinned) : []),
        ...(isAstray(pod) ? [{ name: "capture", ok: false, text: pod.detail }] : []),
        ...kernelFacts(binding, netns, undefined, undefined),
      ],
      counters: {},
      existing: null,
      decisions: [],
    };
  });
}

/** What belongs together, by what is there of it. */
function capturedFacts(binding: NativeBinding, netns: number, pinned: Pinned): readonly KernelFact[] {
  const { dns, ipv6 } = steeringIn(binding, netns, pinned);
  return [
    ...writtenFacts(binding, netns),
    ...routingFacts(binding, netns, ipv6),
    ...listenerFacts(binding, netns, dns !== "none"),
  ];
}

/** As the pod's own state says: the agent's settings are not this process's, the pod's annotations known to the API only. */
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
      const steering = steeringIn(binding, netns.fd, readPinned(binding, config.procDir));
      const proofs = await prover.prove(netns, specOf(view, pod, steering));
      const hasIpv6 = pod.ips.some((ip) => familyOf(ip) === 6);
      return { ...head, proofs: [...proofs, ...untried(steering, hasIpv6)], problem: null };
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
  const resident = await view.residents.of(uid);
  try {
    const [pod] = resident === undefined ? [] : await rowsOf(view, [resident]);
    if (pod === undefined || resident === undefined) {
      throw new AgentError("POD_NOT_FOUND", `no process of pod ${uid} is on this node`);
    }
    return await act(pod, resident);
  } finally {
    resident?.netns.close();
  }
}

function specOf({ config }: NodeView, pod: PodReport, { ipv6, dns, bypassInbound }: Steering): CaptureSpec {
  return {
    uid: pod.uid,
    pod: podTitle(pod),
    ips: pod.ips,
    ipv6,
    dnsCapture: dns !== "none" && dns !== "some",
    dnsServers: typeof dns === "string" ? undefined : dns,
    bypassInbound,
    rerouteInterfaces: [],
    excludeOutboundCidrs: config.excludeOutboundCidrs,
    probeIpv4: config.probeIpv4,
    probeIpv6: config.probeIpv6,
  };
}
