// SPDX-License-Identifier: Apache-2.0
import { ZTUNNEL_PORT } from "../../core/constants.ts";
import { codeOf, messageOf } from "../../core/errors.ts";
import { canonicalIp, familyOf } from "../../core/ip.ts";
import type { NetnsHandle } from "../../core/ports/netns.ts";
import type { TraceDestination, Traced, TracedHop, Tracer } from "../../core/ports/trace.ts";
import type { NativeBinding, SocketInfo } from "../../native/binding.ts";
import { endpointText, holderText, isZtunnels, ProofSockets } from "./sockets.ts";

const CONNECT_MS = 3000;
/** For what ztunnel does with the connection: it begins at once, or waits for nobody knows what. */
const ONWARD_MS = 400;
/** The same where it has a tunnel to the destination already, and most likely opens nothing. */
const TUNNEL_MS = 50;

/**
 * Follows one connection by the kernel's table of sockets. The calling process must be in a cgroup that the eBPF
 * engine's hooks cover, as for proofs.
 */
export class PodTracer implements Tracer {
  constructor(private readonly binding: NativeBinding) {}

  obstacle(netns: NetnsHandle, ip: string): string | undefined {
    const own = this.binding.addresses(netns.fd).some(({ address }) => address === ip);
    return own ? undefined : `${ip} is on no interface of the pod's netns: its runtime handles packets itself`;
  }

  async trace(netns: NetnsHandle, to: TraceDestination): Promise<Traced> {
    const { binding } = this;
    const sockets = new ProofSockets(binding, netns.fd);
    const hops: TracedHop[] = [];
    const seen = (hop: TracedHop["hop"], result: TracedHop["result"], text: string): void => {
      hops.push({ at: performance.now(), hop, result, text });
    };
    const before = new Set(sockets.ztunnels().map(({ cookie }) => cookie));
    let fd: number;
    try {
      fd = await binding.tcpConnect(netns.fd, { family: familyOf(to.address), ...to, timeout: CONNECT_MS });
    } catch (error) {
      const code = codeOf(error);
      seen("connect", "failed", code === "ETIMEDOUT" ? `no answer within ${CONNECT_MS} ms` : messageOf(error));
      return { hops, answered: REFUSALS.includes(code) ? "refused" : "nobody" };
    }
    const own = binding.localEndpoint(fd);
    try {
      seen("connect", "ok", `connected, from ${endpointText(own)}`);
      const taken = sockets.answering(own);
      if (taken === undefined && sockets.at(own) === undefined) {
        seen("answer", "failed", "the connection was ended before it could be seen by whom");
        return { hops, answered: "nobody" };
      }
      if (taken === undefined) {
        seen("answer", "ok", `by somebody outside the pod: ${endpointText(to)} itself, as far as the pod can tell`);
        return { hops, answered: "outside" };
      }
      if (!isZtunnels(taken)) {
        seen("answer", "ok", `by ${holderText(taken)}`);
        return { hops, answered: "pod" };
      }
      const shown = binding.remoteEndpoint(fd);
      seen(
        "answer",
        "ok",
        `by ztunnel at port ${taken.srcPort}; the application is shown ${endpointText(shown)} as its peer`,
      );
      await this.#onward(sockets, before, taken, to, seen);
      return { hops, answered: "ztunnel" };
    } finally {
      // By a reset: no socket waits out its time, and ztunnel ends what it began.
      try {
        const mine = sockets.at(own);
        if (mine !== undefined) sockets.end(mine);
      } finally {
        binding.close(fd);
      }
      const left = sockets.at(own);
      seen(
        "end",
        left === undefined ? "ok" : "failed",
        left === undefined ? "reset; no socket is left" : "a socket is left",
      );
    }
  }

  async #onward(
    sockets: ProofSockets,
    before: ReadonlySet<bigint>,
    { cookie }: SocketInfo,
    to: TraceDestination,
    seen: (hop: "onward", result: TracedHop["result"], text: string) => void,
  ): Promise<void> {
    const tunnels = () => sockets.ztunnels().filter(({ dstPort }) => dstPort === ZTUNNEL_PORT.inboundHbone);
    const direct = tunnels().find((one) => before.has(one.cookie) && canonicalIp(one.dst) === to.address);
    const next = await sockets.await(
      () => sockets.ztunnels().find((one) => one.cookie !== cookie && !before.has(one.cookie) && isCall(one, to)),
      direct === undefined ? ONWARD_MS : TUNNEL_MS,
    );
    if (next !== undefined) {
      const end = endpointText({ address: next.dst, port: next.dstPort });
      const how = next.dstPort === ZTUNNEL_PORT.inboundHbone ? "opens an HBONE connection to" : "calls in plain text";
      seen("onward", "ok", `ztunnel ${how} ${end}`);
      return;
    }
    const ends = [
      ...new Set(tunnels().map(({ dst, dstPort }) => endpointText({ address: dst, port: dstPort }))),
    ].sort();
    seen(
      "onward",
      "unseen",
      direct !== undefined
        ? `handed to ztunnel, which has an HBONE connection to ${endpointText({ address: direct.dst, port: direct.dstPort })} already`
        : `handed to ztunnel; it opened no connection of the pod's within ${ONWARD_MS} ms${
            ends.length === 0 ? "" : `, and has HBONE connections to ${ends.join(", ")}`
          }: its access log says more`,
    );
  }
}

/** EPERM: by a connect hook, on a kernel where it can't say more. */
const REFUSALS: readonly string[] = ["ECONNREFUSED", "ECONNRESET", "EPERM", "EACCES"];

/** Onward: to the destination itself, or into a tunnel. */
function isCall({ dst, dstPort }: SocketInfo, to: TraceDestination): boolean {
  return dstPort === ZTUNNEL_PORT.inboundHbone || (dstPort === to.port && canonicalIp(dst) === to.address);
}
