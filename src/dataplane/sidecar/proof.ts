// SPDX-License-Identifier: Apache-2.0
// Traffic of a sidecar pod: whether the proxy takes it, whoever has written the rules.
import { canonicalIp, familyOf } from "../../core/ip.ts";
import type { NetnsHandle } from "../../core/ports/netns.ts";
import type { Proof, ProofRow } from "../../core/ports/proof.ts";
import type { RedirectedPod } from "../../core/ports/sidecar.ts";
import { type Decision, decide } from "../../core/redirection-decision.ts";
import type { AddressFamily, Endpoint, NativeBinding } from "../../native/binding.ts";
import { NOBODY } from "../nobody.ts";
import { InboundProof, unseen } from "../proof/inbound.ts";
import { type Finding, failed, prove, proved, sandboxed, skipped } from "../proof/proof.ts";
import { endpointText, ProofSockets } from "../proof/sockets.ts";
import { verifyRedirection } from "./verify.ts";

const TIMEOUT_MS = 200;
/** TCP_LISTEN */
const LISTEN = [10] as const;
/** RFC 863, discard. */
const DISCARD = 9;
const DNS = 53;
/** Below the ephemeral ports, and no application's by custom. */
const FIRST_UNUSED = 20_000;
const UNUSED_PORTS = 10_000;

/**
 * Every row that applies, by real connections in the pod's netns. `foreign`: somebody else has written the
 * rules. Leaves nothing behind.
 */
export async function proveRedirection(
  binding: NativeBinding,
  netns: NetnsHandle,
  host: NetnsHandle,
  pod: RedirectedPod,
  foreign: boolean,
): Promise<readonly Proof[]> {
  const { redirection, ips } = pod;
  const local = new Set(binding.addresses(netns.fd).map(({ address }) => canonicalIp(address)));
  using rows = new RedirectionProof(binding, netns.fd, host.fd, pod);
  const dns = redirection.hooks["raw-output"].length > 0;
  const proofs: Proof[] = [];
  // One after the other: a row must not see the sockets of another.
  for (const family of redirection.families) {
    const row = async (name: ProofRow, find: () => Finding | Promise<Finding>) => {
      proofs.push(await prove(name, family, find));
    };
    await row("redirected", async () => {
      if (foreign) return skipped("not our rules: they redirect such a connection of the proxy's user only");
      await verifyRedirection(binding, netns.fd, { ...redirection, families: [family] });
      return proved("a connection of ours over the pod's loopback is redirected, as its own check expects");
    });
    const ip = ips.find((one) => familyOf(one) === family);
    if (ip === undefined) continue;
    if (!local.has(ip)) {
      for await (const proof of sandboxed(family, ip)) proofs.push(proof);
      continue;
    }
    await row("outbound", () => rows.outbound(family, ip));
    await row("inbound", () => rows.inbound(family, ip));
    if (dns) await row("dns-tcp", () => rows.dnsTcp(family, ip));
    rows.endLegs(family);
  }
  return proofs;
}

class RedirectionProof implements Disposable {
  readonly #sockets: ProofSockets;
  readonly #arriving: InboundProof;

  constructor(
    private readonly binding: NativeBinding,
    private readonly netns: number,
    /** The node's netns. */
    host: number,
    private readonly pod: RedirectedPod,
  ) {
    this.#sockets = new ProofSockets(binding, netns);
    this.#arriving = new InboundProof(binding, netns, host, this.#sockets);
  }

  [Symbol.dispose](): void {
    this.#arriving[Symbol.dispose]();
  }

  /** The application calls nobody. The proxy answers, and calls on: see `endLegs`. */
  outbound(family: AddressFamily, ip: string): Promise<Finding> {
    return this.#called(family, ip, { address: NOBODY[family], port: DISCARD });
  }

  dnsTcp(family: AddressFamily, ip: string): Promise<Finding> {
    return this.#called(family, ip, { address: NOBODY[family], port: DNS });
  }

  /** A remote calls a port of which the rules say that it is the proxy's. */
  async inbound(family: AddressFamily, ip: string): Promise<Finding> {
    const open = new Set(this.#listeners().map(({ srcPort }) => srcPort));
    const redirected = this.#candidates(open).flatMap((port) => {
      const decision = this.#arrival(family, ip, port);
      const at = portOf(decision);
      return at === undefined ? [] : [{ port, at, transparent: decision?.kind === "tproxy" }];
    });
    // A transparent listener's socket wears the address that was called: then nobody else must have that port.
    const chosen = redirected.find(({ port, transparent }) => !transparent || !open.has(port));
    if (redirected.length === 0) return skipped("as its annotations ask, nothing that arrives is redirected");
    if (chosen === undefined) return skipped("whoever takes it looks the same: the pod listens at each such port");
    const taken = await this.#arriving.taker(family, ip, chosen.port);
    if (typeof taken !== "object") return unseen(taken);
    const called = endpointText({ address: ip, port: chosen.port });
    if (taken.srcPort !== (chosen.transparent ? chosen.port : chosen.at)) {
      return failed(`a remote's call to ${called} is taken at port ${taken.srcPort}, not at ${chosen.at}`);
    }
    return this.#proxys(chosen.at, `a remote's call to ${called}`);
  }

  /** Ends the proxy's calls to nobody, which it would wait for. */
  endLegs(family: AddressFamily): void {
    for (const port of [DISCARD, DNS]) this.#sockets.endCalls({ address: NOBODY[family], port });
  }

  async #called(family: AddressFamily, ip: string, to: Endpoint): Promise<Finding> {
    const at = portOf(
      decide(this.pod.redirection.hooks["nat-output"], {
        source: ip,
        destination: to.address,
        port: to.port,
        to: this.#interfaceOf(ip),
        uid: process.getuid?.() ?? 0,
        gid: process.getgid?.() ?? 0,
      }),
    );
    const asked = endpointText(to);
    if (at === undefined) return skipped(`as the pod's annotations ask, calls to ${asked} are left alone`);
    const fd = await this.binding.tcpConnect(this.netns, { family, ...to, timeout: TIMEOUT_MS });
    try {
      const answering = this.#sockets.answering(this.binding.localEndpoint(fd));
      if (answering === undefined) return failed(`${asked} was answered outside the pod`);
      if (answering.srcPort !== at) return failed(`${asked} was answered at port ${answering.srcPort}, not at ${at}`);
      const shown = this.binding.remoteEndpoint(fd);
      if (canonicalIp(shown.address) !== to.address || shown.port !== to.port) {
        return failed(`the application is shown ${endpointText(shown)} as its peer, not ${asked}`);
      }
      return this.#proxys(at, `a call to ${asked}`);
    } finally {
      this.binding.close(fd);
    }
  }

  /** Whether the listener at a port is the proxy's; a connection's own socket shows no owner until it is accepted. */
  #proxys(port: number, what: string): Finding {
    const uids = new Set(this.#listeners().flatMap(({ srcPort, uid }) => (srcPort === port ? [uid] : [])));
    const { proxyUid } = this.pod;
    if (uids.has(proxyUid)) return proved(`${what} is taken by the proxy at port ${port}`);
    return failed(`${what} is taken at port ${port} by uid ${[...uids].join(", ")}, not by the proxy's ${proxyUid}`);
  }

  #arrival(family: AddressFamily, ip: string, port: number): Decision | undefined {
    const { hooks } = this.pod.redirection;
    const connection = { source: NOBODY[family], destination: ip, port, from: this.#interfaceOf(ip) };
    const transparent = decide(hooks["mangle-prerouting"], connection);
    return transparent?.kind === "tproxy" ? transparent : decide(hooks["nat-prerouting"], connection);
  }

  /** One at which nobody listens, then those that the rules name. */
  #candidates(open: ReadonlySet<number>): readonly number[] {
    const unused = Array.from({ length: UNUSED_PORTS }, (_, index) => FIRST_UNUSED + index);
    const free = unused.filter((port) => !open.has(port));
    const any = free[Math.floor(Math.random() * free.length)];
    const { hooks } = this.pod.redirection;
    const named = [...hooks["mangle-prerouting"], ...hooks["nat-prerouting"]].flatMap(({ match }) => match.ports ?? []);
    return [...(any === undefined ? [] : [any]), ...new Set(named)];
  }

  #listeners() {
    return this.binding.sockets(this.netns, { protocol: "tcp", states: LISTEN });
  }

  #interfaceOf(ip: string): string | undefined {
    const index = this.binding.addresses(this.netns).find(({ address }) => canonicalIp(address) === ip)?.ifindex;
    return this.binding.links(this.netns).find((link) => link.index === index)?.name;
  }
}

function portOf(decision: Decision | undefined): number | undefined {
  return decision?.kind === "redirect" || decision?.kind === "tproxy" ? decision.port : undefined;
}
