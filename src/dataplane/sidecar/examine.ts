// SPDX-License-Identifier: Apache-2.0
// A sidecar pod's kernel state for people: the redirection, and whether the proxy listens where it leads.
import { SIDECAR_PORT } from "../../core/constants.ts";
import type { KernelFact } from "../../core/ports/dataplane.ts";
import type { NetnsHandle } from "../../core/ports/netns.ts";
import type { RedirectedPod, RedirectionObservation } from "../../core/ports/sidecar.ts";
import type { Redirection } from "../../core/redirection.ts";
import type { NativeBinding, SocketInfo } from "../../native/binding.ts";

/** TCP_LISTEN, and TCP_CLOSE: the state of an unconnected UDP socket. */
const STATES = { tcp: [10], udp: [7] } as const;

export function redirectionFacts(
  binding: NativeBinding,
  netns: NetnsHandle,
  pod: RedirectedPod,
  observation: RedirectionObservation,
): readonly KernelFact[] {
  return [...ruleFacts(observation), ...listenerFacts(binding, netns.fd, pod)];
}

function ruleFacts({ mode, engine, differences }: RedirectionObservation): readonly KernelFact[] {
  const name = "redirection";
  switch (mode) {
    case "redirected":
      return [{ name, ok: true, text: `${engine ?? "?"}, as it should be` }];
    case "foreign":
      return [
        { name, ok: null, text: `${engine ?? "?"}, not by our rules: they stay as they are, and are not compared` },
      ];
    case "absent":
      return [{ name, ok: false, text: "nothing redirects the pod's traffic into its sidecar" }];
    case "differs":
      return differences.map((text) => ({ name, ok: false, text }));
  }
}

function listenerFacts(binding: NativeBinding, netns: number, pod: RedirectedPod): readonly KernelFact[] {
  const tcp = binding.sockets(netns, { protocol: "tcp", states: STATES.tcp });
  const udp = binding.sockets(netns, { protocol: "udp", states: STATES.udp });
  const ports = redirectedPorts(pod.redirection);
  return [
    { port: SIDECAR_PORT.outbound, what: "outbound", sockets: tcp },
    { port: SIDECAR_PORT.inbound, what: "inbound", sockets: tcp },
    { port: SIDECAR_PORT.dns, what: "DNS over TCP", sockets: tcp },
    { port: SIDECAR_PORT.dns, what: "DNS over UDP", sockets: udp },
  ].flatMap(({ port, what, sockets }) => (ports.has(port) ? [listenerFact(port, what, sockets, pod.proxyUid)] : []));
}

function redirectedPorts({ hooks }: Redirection): ReadonlySet<number> {
  const actions = Object.values(hooks).flatMap((rules) => rules.map(({ action }) => action));
  return new Set(
    actions.flatMap((action) =>
      (action.kind === "redirect" || action.kind === "tproxy") && action.port !== undefined ? [action.port] : [],
    ),
  );
}

function listenerFact(port: number, what: string, sockets: readonly SocketInfo[], proxy: number): KernelFact {
  const name = `listener ${port}`;
  const uids = new Set(sockets.flatMap(({ srcPort, uid }) => (srcPort === port ? [uid] : [])));
  if (uids.has(proxy)) return { name, ok: true, text: `${what}: the proxy, uid ${proxy}` };
  const instead = [...uids].map((uid) => `, and a socket of uid ${uid} has the port`).join("");
  return { name, ok: false, text: `${what}: the proxy (uid ${proxy}) does not listen${instead}` };
}
