// SPDX-License-Identifier: Apache-2.0
// Connections that begin in the pod.
import { ZTUNNEL_PORT } from "../../core/constants.ts";
import { codeOf } from "../../core/errors.ts";
import { canonicalIp } from "../../core/ip.ts";
import type { AddressFamily, Endpoint, NativeBinding } from "../../native/binding.ts";
import { NOBODY } from "../nobody.ts";
import { type Finding, failed, proved } from "./proof.ts";
import { endpointText, holderText, isZtunnels, type ProofSockets } from "./sockets.ts";

const TIMEOUT_MS = 200;
const DNS = 53;
/** RFC 863, discard. */
const DISCARD = 9;
const LOOPBACK = { 4: "127.0.0.1", 6: "::1" } as const;

export class OutboundProof {
  constructor(
    private readonly binding: NativeBinding,
    private readonly netns: number,
    private readonly sockets: ProofSockets,
  ) {}

  /** A call to nobody. ztunnel has answered it, and calls on: see `endLegs`. */
  outbound(family: AddressFamily): Promise<Finding> {
    return this.#answered(family, { address: NOBODY[family], port: DISCARD }, ZTUNNEL_PORT.outbound);
  }

  /** Ends ztunnel's calls to nobody, which it would wait for. */
  endLegs(family: AddressFamily): void {
    this.sockets.endCalls({ address: NOBODY[family], port: DISCARD });
  }

  dnsTcp(family: AddressFamily, nameserver: string | undefined): Promise<Finding> {
    return this.#answered(family, { address: nameserver ?? NOBODY[family], port: DNS }, ZTUNNEL_PORT.dns);
  }

  /** Listeners of our own, at the pod's address and on loopback. */
  async itself(family: AddressFamily, ip: string | undefined): Promise<Finding> {
    const addresses = [...(ip === undefined ? [] : [ip]), LOOPBACK[family]];
    for (const address of addresses) {
      const listener = this.binding.tcpListen(this.netns, { family, bind: { address, port: 0 }, backlog: 1 });
      const open = [listener];
      try {
        const { port } = this.binding.localEndpoint(listener);
        open.push(await this.binding.tcpConnect(this.netns, { family, address, port, timeout: TIMEOUT_MS }));
        const accepted = this.binding.tcpAccept(listener);
        if (accepted < 0) return failed(`${endpointText({ address, port })} was answered by somebody else`);
        open.push(accepted);
      } finally {
        for (const fd of open) this.binding.close(fd);
      }
    }
    return proved(`${addresses.join(" and ")}: reached directly`);
  }

  /** Nobody calls ztunnel's ports by themselves: at 15001 that would be an endless loop. */
  async ownPorts(family: AddressFamily, ip: string): Promise<Finding> {
    const ports = [ZTUNNEL_PORT.outbound, ZTUNNEL_PORT.inboundPlaintext];
    for (const port of ports) {
      const call = this.binding.tcpConnect(this.netns, { family, address: ip, port, timeout: TIMEOUT_MS });
      const outcome = await call.then((fd) => {
        this.binding.close(fd);
        return "answered";
      }, codeOf);
      // By rules, or by the connect hook.
      if (outcome !== "ECONNREFUSED" && outcome !== "EPERM") {
        return failed(`a call to ${endpointText({ address: ip, port })} is not refused: ${outcome}`);
      }
    }
    return proved(`${ports.join(" and ")} are refused`);
  }

  /** A call is answered by ztunnel's listener at `port`. */
  async #answered(family: AddressFamily, to: Endpoint, port: number): Promise<Finding> {
    const fd = await this.binding.tcpConnect(this.netns, { family, ...to, timeout: TIMEOUT_MS });
    try {
      const answering = this.sockets.answering(this.binding.localEndpoint(fd));
      if (answering === undefined) return failed(`${endpointText(to)} was answered outside the pod`);
      if (!isZtunnels(answering)) return failed(`${endpointText(to)} was answered by ${holderText(answering)}`);
      if (answering.srcPort !== port) return failed(`ztunnel answered at port ${answering.srcPort}, not at ${port}`);
      const shown = this.binding.remoteEndpoint(fd);
      if (canonicalIp(shown.address) !== to.address || shown.port !== to.port) {
        return failed(`the application is shown ${endpointText(shown)} as its peer, not ${endpointText(to)}`);
      }
      return proved(`${endpointText(to)} is answered by ztunnel at port ${port}`);
    } finally {
      this.binding.close(fd);
    }
  }
}
