// SPDX-License-Identifier: Apache-2.0
import { PROBE_SNAT_IPV4, PROBE_SNAT_IPV6 } from "../../core/constants.ts";
import { AgentError } from "../../core/errors.ts";
import type { CaptureSpec } from "../../core/ports/dataplane.ts";
import type { NativeBinding } from "../../native/binding.ts";
import type { Cgroup } from "../../sys/cgroup.ts";
import type { Engine } from "../engine.ts";
import { addRouting } from "../routes.ts";
import { ScratchPair } from "../scratch.ts";
import { testSteering } from "../steering-test.ts";
import { setSysctls } from "../sysctls.ts";
import type { Cgroups } from "./cgroups.ts";
import type { EbpfNode } from "./node.ts";

const LISTEN_STATE = 10;

/**
 * Captures a scratch pod and makes real connections both ways; the agent plays the application and
 * ztunnel. Returns what is lost on this node, as sentences. @throws Error that names what does not work.
 */
export async function selfTest(binding: NativeBinding, node: EbpfNode, engine: Engine): Promise<string[]> {
  const losses = node.hooks.losses;
  using pair = ScratchPair.create(binding);
  if (!pair.families.includes(6)) losses.push("new network namespaces have no IPv6: IPv6 capture was not tested");
  const denied = setSysctls(binding, pair.pod.fd, false).failures;
  const required = denied.filter((failure) => failure.required);
  if (required.length > 0) {
    throw new AgentError(
      "SYSCTL_DENIED",
      `sysctls of a pod can't be set (${required.map(({ key, reason }) => `${key}: ${reason}`).join(", ")})`,
    );
  }
  for (const { key, reason } of denied) losses.push(`${key} can't be set (${reason})`);
  addRouting(binding, pair.pod.fd, pair.families);
  const own = ownCgroup(binding, pair.pod.fd, node.cgroups);
  node.own = own;
  node.hooks.cover(own);
  const end = node.ztunnels.playedBy(own);
  try {
    const spec = specOf(pair);
    await engine.apply(pair.pod, spec, { sysctls: "" });
    await engine.verify(pair.pod, spec);
    await testSteering(binding, pair);
    return losses;
  } finally {
    await engine.remove(pair.pod);
    end();
  }
}

/** By a socket of our own: /proc/self/cgroup is relative to a cgroup namespace. */
export function ownCgroup(binding: NativeBinding, netns: number, cgroups: Cgroups): Cgroup {
  const listener = binding.tcpListen(netns, { family: 4, bind: { address: "127.0.0.1", port: 0 } });
  try {
    const { port } = binding.localEndpoint(listener);
    const id = binding
      .sockets(netns, { protocol: "tcp", states: [LISTEN_STATE] })
      .find(({ srcPort }) => srcPort === port)?.cgroupId;
    const own = id === undefined || id === 0n ? undefined : cgroups.withId(id);
    if (own !== undefined) return own;
    throw new AgentError("OWN_CGROUP", `the agent's own cgroup (id ${id ?? "unknown"}) is not in the node's hierarchy`);
  } finally {
    binding.close(listener);
  }
}

function specOf(pair: ScratchPair): CaptureSpec {
  return {
    uid: "self-test",
    pod: "self/test",
    ips: pair.families.map((family) => pair.podIp(family)),
    ipv6: pair.families.includes(6),
    dnsCapture: true,
    dnsServers: undefined,
    bypassInbound: false,
    rerouteInterfaces: [],
    excludeOutboundCidrs: [],
    probeIpv4: PROBE_SNAT_IPV4,
    probeIpv6: PROBE_SNAT_IPV6,
  };
}
