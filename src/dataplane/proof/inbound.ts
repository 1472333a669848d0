// SPDX-License-Identifier: Apache-2.0
// Connections that come to the pod. A remote's SYN is put on the node's end of the pod's veth pair, and the
// kernel's table of sockets shows who took it, before any answer has come back.
import { close } from "node:fs";
import { ZTUNNEL_PORT } from "../../core/constants.ts";
import { canonicalIp } from "../../core/ip.ts";
import type { AddressFamily, Link, NativeBinding, SocketInfo } from "../../native/binding.ts";
import { type Finding, failed, proved, skipped } from "./proof.ts";
import { remoteFor } from "./remote.ts";
import { endpointText, holderText, isZtunnels, type ProofSockets } from "./sockets.ts";

const TIMEOUT_MS = 200;
const ARRIVE_MS = 30;
/** Ports of the remote that is nobody. */
const FIRST_PORT = 40_000;
const PORTS = 20_000;

export class InboundProof implements Disposable {
  #next = Math.floor(Math.random() * PORTS);
  /** Sends the remote's SYNs; opened for the first. */
  #remote: number | undefined;

  constructor(
    private readonly binding: NativeBinding,
    private readonly netns: number,
    /** The node's netns. */
    private readonly host: number,
    private readonly sockets: ProofSockets,
  ) {}

  /** A remote calls a port at which we listen ourselves: unless inbound is bypassed, it must not reach us. */
  async inbound(family: AddressFamily, ip: string, bypassed: boolean): Promise<Finding> {
    return this.#withListener(family, ip, async (port) => {
      const taken = await this.taker(family, ip, port);
      if (typeof taken !== "object") return unseen(taken);
      if (bypassed && !isZtunnels(taken)) return proved("inbound is not captured, as the pod's annotation asks");
      if (bypassed) return failed(`inbound is bypassed, but ztunnel took a remote's call to port ${port}`);
      if (!isZtunnels(taken)) return failed(`a remote's call reached ${holderText(taken)}, past ztunnel`);
      const at = canonicalIp(taken.src) === ip ? `at port ${taken.srcPort}` : `at its shadow ${canonicalIp(taken.src)}`;
      return proved(`a remote's call to ${endpointText({ address: ip, port })} is taken by ztunnel ${at}`);
    });
  }

  async hbone(family: AddressFamily, ip: string): Promise<Finding> {
    const port = ZTUNNEL_PORT.inboundHbone;
    const taken = await this.taker(family, ip, port);
    if (typeof taken !== "object") return unseen(taken);
    if (!isZtunnels(taken)) return failed(`a remote's call to ${port} reached ${holderText(taken)}`);
    if (canonicalIp(taken.src) !== ip || taken.srcPort !== port) {
      return failed(
        `ztunnel took a remote's call to ${port} at ${endpointText({ address: taken.src, port: taken.srcPort })}`,
      );
    }
    return proved(`a remote's call to ${endpointText({ address: ip, port })} is ztunnel's, untouched`);
  }

  /** A real connection of the node's, to a listener of our own in the pod. */
  async probe(family: AddressFamily, ip: string): Promise<Finding> {
    return this.#withListener(family, ip, async (port, listener) => {
      const open = [await this.binding.tcpConnect(this.host, { family, address: ip, port, timeout: TIMEOUT_MS })];
      try {
        const accepted = this.binding.tcpAccept(listener);
        if (accepted < 0) return failed("a connection of the node's was answered by somebody else");
        open.push(accepted);
        const from = this.binding.remoteEndpoint(accepted);
        // ztunnel's own call to the application wears the caller's address.
        if (this.sockets.calling({ address: ip, port }) !== undefined) {
          return failed("a connection of the node's came by way of ztunnel");
        }
        return proved(`a connection of the node's arrives directly, from ${canonicalIp(from.address)}`);
      } finally {
        for (const fd of open) this.binding.close(fd);
      }
    });
  }

  async #withListener(
    family: AddressFamily,
    ip: string,
    use: (port: number, listener: number) => Promise<Finding>,
  ): Promise<Finding> {
    const listener = this.binding.tcpListen(this.netns, { family, bind: { address: ip, port: 0 }, backlog: 4 });
    try {
      return await use(this.binding.localEndpoint(listener).port, listener);
    } finally {
      this.binding.close(listener);
    }
  }

  /** Who takes a remote's call, which is ended then. A word where that can't be seen. */
  async taker(family: AddressFamily, ip: string, port: number): Promise<SocketInfo | Unseen> {
    const pair = this.#veth(ip);
    if (pair === undefined) return "no-veth";
    const address = remoteFor(this.binding, this.netns, this.host, ip);
    if (address === undefined) return "no-remote";
    const remote = { address, port: FIRST_PORT + (this.#next++ % PORTS) };
    this.#remote ??= this.binding.synSocket(this.host);
    this.binding.synSend(this.#remote, {
      family,
      ifindex: pair.outside.index,
      srcMac: pair.outside.mac,
      dstMac: pair.inside.mac,
      src: remote.address,
      srcPort: remote.port,
      dst: ip,
      dstPort: port,
    });
    const taken = await this.sockets.await(() => this.sockets.answering(remote), ARRIVE_MS);
    if (taken === undefined) return "nobody";
    this.sockets.end(taken);
    return taken;
  }

  [Symbol.dispose](): void {
    const remote = this.#remote;
    this.#remote = undefined;
    // On another thread: it takes longer than all the rest.
    if (remote !== undefined) close(remote);
  }

  /** The pod's end that carries the address, and the node's end of it. */
  #veth(ip: string): { readonly inside: Link; readonly outside: Link } | undefined {
    const index = this.binding.addresses(this.netns).find(({ address }) => address === ip)?.ifindex;
    const inside = this.binding.links(this.netns).find((link) => link.index === index && link.kind === "veth");
    if (inside === undefined) return undefined;
    const outside = this.binding
      .links(this.host)
      .find((link) => link.index === inside.peer && link.peer === inside.index && link.kind === "veth");
    return outside === undefined ? undefined : { inside, outside };
  }
}

export type Unseen = "no-veth" | "no-remote" | "nobody";

export function unseen(why: Unseen): Finding {
  if (why === "no-veth") return skipped("the pod's interface is no veth pair whose other end is the node's");
  if (why === "no-remote") return skipped("the node has no route to anybody: whose call it is can't be made up");
  return failed("a remote's call was taken by nobody");
}
