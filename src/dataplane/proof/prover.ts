// SPDX-License-Identifier: Apache-2.0
import { familyOf, inCidr } from "../../core/ip.ts";
import type { CaptureSpec } from "../../core/ports/dataplane.ts";
import type { NetnsHandle } from "../../core/ports/netns.ts";
import type { Proof, Prover } from "../../core/ports/proof.ts";
import type { AddressFamily, NativeBinding } from "../../native/binding.ts";
import { NOBODY } from "../nobody.ts";
import { families } from "../routes.ts";
import { dnsUdp } from "./dns-udp.ts";
import { InboundProof } from "./inbound.ts";
import { OutboundProof } from "./outbound.ts";
import { prove, sandboxed, skipped } from "./proof.ts";
import { ProofSockets } from "./sockets.ts";

export interface ProverOptions {
  readonly binding: NativeBinding;
  /** The node's netns. */
  readonly host: NetnsHandle;
  /** False: only kubelet reaches captured pods directly, and this process is none. */
  readonly probesFromHost: boolean;
}

/**
 * Proves where a captured pod's traffic lands, by real connections inside its netns. The calling process must
 * be in a cgroup that the eBPF engine's hooks cover: as the agent's pod is, or in the pod's own.
 */
export class PodProver implements Prover {
  constructor(private readonly options: ProverOptions) {}

  async prove(netns: NetnsHandle, spec: CaptureSpec): Promise<readonly Proof[]> {
    const { binding } = this.options;
    const local = new Set(binding.addresses(netns.fd).map(({ address }) => address));
    const proofs: Proof[] = [];
    for (const family of families(binding, netns.fd, spec.ipv6)) {
      const ip = spec.ips.find((one) => familyOf(one) === family);
      const foreign = ip !== undefined && !local.has(ip);
      // One after the other: a row must not see the sockets of another.
      for await (const proof of foreign ? sandboxed(family, ip) : this.#rows(netns, spec, family, ip))
        proofs.push(proof);
    }
    return proofs;
  }

  async *#rows(
    netns: NetnsHandle,
    spec: CaptureSpec,
    family: AddressFamily,
    ip: string | undefined,
  ): AsyncGenerator<Proof> {
    const { binding, host, probesFromHost } = this.options;
    const sockets = new ProofSockets(binding, netns.fd);
    const outbound = new OutboundProof(binding, netns.fd, sockets);
    // A family without an address of the pod's own has no way out, and nobody comes by it.
    if (ip !== undefined) {
      using inbound = new InboundProof(binding, netns.fd, host.fd, sockets);
      const excluded = spec.excludeOutboundCidrs.find((cidr) => inCidr(NOBODY[family], cidr));
      yield prove("outbound", family, () =>
        excluded === undefined
          ? outbound.outbound(family)
          : skipped(`${excluded} is excluded, and with it ${NOBODY[family]}, to which the proof would call`),
      );
      yield prove("inbound", family, () => inbound.inbound(family, ip, spec.bypassInbound));
      yield prove("hbone", family, () => inbound.hbone(family, ip));
      yield prove("probe", family, () =>
        probesFromHost ? inbound.probe(family, ip) : skipped("only kubelet's own connections are let through here"),
      );
      yield prove("own-ports", family, () => outbound.ownPorts(family, ip));
    }
    yield prove("itself", family, () => outbound.itself(family, ip));
    const nameserver = spec.dnsServers?.find((one) => familyOf(one) === family);
    const asked = spec.dnsServers === undefined || nameserver !== undefined;
    if (spec.dnsCapture && ip !== undefined && asked) {
      yield prove("dns-tcp", family, () => outbound.dnsTcp(family, nameserver));
      yield prove("dns-udp", family, () =>
        dnsUdp(binding, netns.fd, family, nameserver ?? NOBODY[family], nameserver !== undefined),
      );
    }
    // Last, so that ztunnel has had the time to begin them.
    outbound.endLegs(family);
  }
}
