// SPDX-License-Identifier: Apache-2.0
// A pod's kernel state for people: everything that capture stands on, as it is and as it should be.
import { POD_TABLE, ROUTE_TABLE, RULE_PRIORITY, SIDECAR_TABLE, ZTUNNEL_PORT } from "../core/constants.ts";
import { codeOf } from "../core/errors.ts";
import type { CaptureSpec, KernelFact, Observation } from "../core/ports/dataplane.ts";
import type { NetnsHandle } from "../core/ports/netns.ts";
import type { NativeBinding, SocketInfo } from "../native/binding.ts";
import { endpointText, isZtunnels } from "./proof/sockets.ts";
import { reservedPorts } from "./reserved-ports.ts";
import { families, missingRouting } from "./routes.ts";
import { wrongSysctls } from "./sysctls.ts";

const OURS: readonly string[] = [`inet ${POD_TABLE}`, `inet ${SIDECAR_TABLE}`];

/** TCP_LISTEN */
const LISTEN = 10;
/** TCP_CLOSE: the state of an unconnected UDP socket. */
const UNCONNECTED = 7;

const LISTENERS = [
  { port: ZTUNNEL_PORT.outbound, what: "outbound" },
  { port: ZTUNNEL_PORT.inboundPlaintext, what: "inbound plaintext" },
  { port: ZTUNNEL_PORT.inboundHbone, what: "HBONE" },
] as const;

/** `observation` undefined: the pod is not of the mesh, and whatever is there is not compared. */
export function kernelFacts(
  binding: NativeBinding,
  netns: NetnsHandle,
  spec: CaptureSpec | undefined,
  observation: Observation | undefined,
): readonly KernelFact[] {
  return [
    ...captureFacts(observation),
    ...(spec === undefined ? [] : routingFacts(binding, netns.fd, spec.ipv6)),
    ...(spec === undefined ? [] : listenerFacts(binding, netns.fd, spec.dnsCapture)),
    ...reservedFacts(binding, netns.fd),
    ...foreignFacts(binding, netns.fd),
  ];
}

function reservedFacts(binding: NativeBinding, netns: number): KernelFact[] {
  const ports = reservedPorts(binding, netns);
  if (ports === undefined) return [];
  return [{ name: "reserved ports", ok: true, text: `${ports}: connections older than the capture have them` }];
}

function captureFacts(observation: Observation | undefined): KernelFact[] {
  if (observation === undefined) return [];
  const { mode, engine, differences } = observation;
  const name = "capture";
  if (differences.length > 0) return differences.map((text) => ({ name, ok: false, text }));
  if (mode === "absent") return [{ name, ok: false, text: "nothing of ours is in the netns" }];
  return [{ name, ok: mode === "captured", text: `${engine ?? "?"}, ${mode}` }];
}

/** What every engine's capture stands on. `ipv6`: it is captured too. */
export function routingFacts(binding: NativeBinding, netns: number, ipv6: boolean): KernelFact[] {
  const facts: KernelFact[] = [];
  for (const family of families(binding, netns, ipv6)) {
    const missing = missingRouting(binding, netns, [family]);
    const fine = `IPv${family}: rule ${RULE_PRIORITY} fwmark 0x111/0xfff lookup ${ROUTE_TABLE}, local default dev lo`;
    facts.push(
      ...(missing.length === 0
        ? [{ name: "routing", ok: true, text: fine }]
        : missing.map((text) => ({ name: "routing", ok: false, text }))),
    );
  }
  const wrong = wrongSysctls(binding, netns, false);
  facts.push(
    ...(wrong.length === 0
      ? [{ name: "sysctls", ok: true, text: "tcp_fwmark_accept and fwmark_reflect are 1" }]
      : wrong.map((text) => ({ name: "sysctls", ok: null, text }))),
  );
  return facts;
}

/** ztunnel's sockets in the netns of a captured pod. */
export function listenerFacts(binding: NativeBinding, netns: number, dns: boolean): KernelFact[] {
  const tcp = binding.sockets(netns, { protocol: "tcp", states: [LISTEN] });
  const facts = LISTENERS.map(({ port, what }) => listenerFact(port, what, tcp));
  if (!dns) return facts;
  const udp = binding.sockets(netns, { protocol: "udp", states: [UNCONNECTED] });
  return [
    ...facts,
    listenerFact(ZTUNNEL_PORT.dns, "DNS over TCP", tcp),
    listenerFact(ZTUNNEL_PORT.dns, "DNS over UDP", udp),
  ];
}

function listenerFact(port: number, what: string, sockets: readonly SocketInfo[]): KernelFact {
  const name = `listener ${port}`;
  const found = sockets.filter((socket) => socket.srcPort === port);
  const ztunnels = found.filter(isZtunnels);
  const others = found.filter((socket) => !isZtunnels(socket));
  const at = ztunnels.map(({ src, srcPort }) => endpointText({ address: src, port: srcPort })).join(", ");
  if (ztunnels.length > 0) return { name, ok: true, text: `${what}: ztunnel at ${at}` };
  const instead = others.map(({ uid }) => `, and a socket of uid ${uid} has the port`).join("");
  return { name, ok: false, text: `${what}: ztunnel does not listen${instead}` };
}

/** Rules of others: they may be what a pod's trouble is about, and are never wrong by themselves. */
function foreignFacts(binding: NativeBinding, netns: number): KernelFact[] {
  const all = foreignRules(binding, netns);
  return all.length === 0 ? [] : [{ name: "other rules", ok: null, text: all.join(", ") }];
}

/** Names of tables in a netns that are not ours. @throws NativeError */
export function foreignRules(binding: NativeBinding, netns: number): readonly string[] {
  const tables = unlessMissing(() => binding.nftTables(netns)).filter((name) => !OURS.includes(name));
  const legacy = ([4, 6] as const).flatMap((family) =>
    unlessMissing(() => binding.xtables(netns, family))
      .filter(({ rules }) => rules.length > 0)
      .map(({ name }) => `${family === 4 ? "ip" : "ip6"} ${name} (legacy)`),
  );
  return [...tables, ...legacy];
}

function unlessMissing<T>(read: () => readonly T[]): readonly T[] {
  try {
    return read();
  } catch (error) {
    // A kernel without nf_tables.
    if (codeOf(error) === "EOPNOTSUPP") return [];
    throw error;
  }
}
