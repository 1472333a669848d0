// SPDX-License-Identifier: Apache-2.0
// A sidecar pod with an application, a second interface and a stand-in for the sidecar; and around it those
// whom it calls and who call it. The redirection changes from test to test, the rest stays.
import { createSocket, type Socket as Datagram } from "node:dgram";
import { codeOf } from "../../../src/core/errors.ts";
import type { EngineName } from "../../../src/core/ports/dataplane.ts";
import type { NetnsHandle } from "../../../src/core/ports/netns.ts";
import type { RedirectionObservation } from "../../../src/core/ports/sidecar.ts";
import type { Redirection } from "../../../src/core/redirection.ts";
import { SidecarRedirector } from "../../../src/dataplane/sidecar/redirector.ts";
import type { NativeBinding, SocketOptions } from "../../../src/native/binding.ts";
import { native } from "../../../src/native/load.ts";
import { createNetns, type HeldNetns } from "../../../src/native/netns.ts";
import { run } from "../../../src/sys/exec.ts";
import { quiet } from "../../support/lab-dataplane.ts";
import { Call, EchoServer, outcome } from "../../support/lab-peer.ts";
import { LabPrograms } from "../../support/lab-programs.ts";
import { LabSidecar } from "../../support/lab-sidecar.ts";
import { ipOf, NetnsLab } from "../../support/netns-lab.ts";
import { type RedirectionWish, redirectionOf, sample } from "../../support/sidecar-samples.ts";

export type Family = 4 | 6;
export const FAMILIES: readonly Family[] = [4, 6];

export interface LabWriter {
  readonly name: string;
  readonly engine: EngineName;
  readonly variant: "legacy" | "nft" | undefined;
}

export const WRITERS: readonly LabWriter[] = [
  { name: "nftables", engine: "nftables", variant: undefined },
  { name: "iptables-nft", engine: "iptables", variant: "nft" },
  { name: "iptables-legacy", engine: "iptables", variant: "legacy" },
];

export function redirectorOf(
  { engine, variant }: LabWriter,
  host: NetnsHandle,
  binding: NativeBinding = native(),
): SidecarRedirector {
  return new SidecarRedirector({
    binding,
    host,
    logger: quiet,
    engine: engine === "nftables" ? "auto" : engine,
    variant,
    sample,
  });
}

export const APP = 8080;
export const OTHER_APP = 8081;
export const SERVICE = 80;
/** A service whose only endpoint is the pod itself. */
export const VIP = { 4: "10.96.0.9", 6: "fd96::9" } as const;
/** Nobody's, but a service for the sidecar: it leads to the remote. */
export const ELSEWHERE = { 4: "198.51.100.9", 6: "2001:db8:9::9" } as const;

/** Who answered, whom it saw, and which ports of the sidecar the connection came by. */
export interface Outcome {
  readonly who: string;
  readonly client: string;
  readonly via: readonly string[];
}

export class Ground {
  readonly redirector: SidecarRedirector;
  redirection: Redirection | undefined;
  readonly #servers: EchoServer[] = [];
  readonly #nameservers: Datagram[] = [];

  private constructor(
    readonly writer: LabWriter,
    readonly lab: NetnsLab,
    /** Behind the pod's second interface, net1. */
    readonly behind: HeldNetns,
    readonly sidecar: LabSidecar,
    readonly programs: LabPrograms,
  ) {
    this.redirector = redirectorOf(writer, lab.client.netns);
  }

  static async create(writer: LabWriter, transparent = false): Promise<Ground> {
    const lab = NetnsLab.create();
    const services: Record<string, string> = {};
    for (const family of FAMILIES) {
      services[`${VIP[family]}:${SERVICE}`] = `${ipOf(lab.pod, family)}:${APP}`;
      services[`${ELSEWHERE[family]}:${SERVICE}`] = `${ipOf(lab.client, family)}:${SERVICE}`;
    }
    // It binds ::6 only when it passes a connection on, so it need not be there yet.
    const sidecar = transparent
      ? await LabSidecar.startTransparent(lab.pod.netns, { services })
      : await LabSidecar.start(lab.pod.netns, { services });
    const ground = new Ground(writer, lab, secondInterface(lab), sidecar, await LabPrograms.compile(["lab-owner"]));
    await ground.#serve();
    return ground;
  }

  async #serve(): Promise<void> {
    const { lab } = this;
    for (const [netns, name, port] of [
      [lab.pod.netns, "app", APP],
      [lab.pod.netns, "other app", OTHER_APP],
      [lab.pod.netns, "status", 15020],
      [lab.client.netns, "remote", SERVICE],
      [lab.client.netns, "remote", 443],
      [lab.client.netns, "remote", 15020],
      [lab.client.netns, "nameserver", 53],
      [this.behind, "behind", SERVICE],
    ] as const) {
      this.#servers.push(await EchoServer.start(netns, name, { family: 6, bind: { address: "::", port } }));
    }
    for (const family of FAMILIES) {
      const bind = { address: ipOf(lab.client, family), port: 53 };
      const nameserver = createSocket(family === 4 ? "udp4" : "udp6");
      nameserver.on("message", (message, from) => nameserver.send(`nameserver:${message}`, from.port, from.address));
      nameserver.bind({ fd: native().udpSocket(lab.client.netns.fd, { family, bind }) });
      this.#nameservers.push(nameserver);
    }
  }

  /** Puts a redirection in the place of the one before. */
  async redirect(wish: RedirectionWish = {}): Promise<RedirectionObservation> {
    const { netns } = this.lab.pod;
    const redirection = redirectionOf(wish);
    if (this.redirection !== undefined) await this.redirector.remove(netns, this.redirection);
    this.redirection = redirection;
    return this.redirector.redirect(netns, redirection, "test/pod");
  }

  /** The redirection that is in force. */
  get current(): Redirection {
    if (this.redirection === undefined) throw new Error("nothing is redirected yet");
    return this.redirection;
  }

  /** A pod of the same addresses without a sidecar in it yet. */
  twin(): NetnsLab {
    return NetnsLab.create();
  }

  /** How a call from outside to such a pod ends. */
  async fromTwin(lab: NetnsLab, family: Family): Promise<string> {
    const address = ipOf(lab.pod, family);
    return outcome(Call.open(lab.client.netns, family, address, APP, { timeout: 1000 }));
  }

  fromRemote(family: Family, port: number, options: Partial<SocketOptions> = {}): Promise<Outcome> {
    return this.#outcome(this.lab.client.netns, family, ipOf(this.lab.pod, family), port, options);
  }

  fromBehind(family: Family, address: string, port: number): Promise<Outcome> {
    return this.#outcome(this.behind, family, address, port, {});
  }

  fromApp(family: Family, address: string, port: number, options: Partial<SocketOptions> = {}): Promise<Outcome> {
    return this.#outcome(this.lab.pod.netns, family, address, port, options);
  }

  /** A call by another user and group, and what came of it. */
  async fromOwner(uid: number, gid: number, ...call: readonly string[]): Promise<string> {
    const { stdout } = await run([this.programs.file("lab-owner"), String(uid), String(gid), ...call], {
      netns: this.lab.pod.netns.fd,
      timeoutMs: 10_000,
    });
    const line = stdout.trim();
    return line.startsWith("{") ? (JSON.parse(line) as { name: string }).name : line;
  }

  async #outcome(
    netns: HeldNetns,
    family: Family,
    address: string,
    port: number,
    options: Partial<SocketOptions>,
  ): Promise<Outcome> {
    this.sidecar.forget();
    let call: Call | undefined;
    let seen: Pick<Outcome, "who" | "client">;
    try {
      call = await Call.open(netns, family, address, port, { timeout: 2000, ...options });
      const line = await call.line();
      if (line.startsWith("{")) {
        const { name, remote } = JSON.parse(line) as { name: string; remote: { address: string } };
        seen = { who: name, client: remote.address };
        // Both ways, and what came first was not all.
        if ((await call.echo("alive")) !== "alive") seen = { who: `${name}, who garbles`, client: remote.address };
      } else {
        seen = { who: line, client: "" };
      }
    } catch (error) {
      seen = { who: codeOf(error) === "UNKNOWN" ? "closed" : codeOf(error), client: "" };
    } finally {
      call?.close();
    }
    return { ...seen, via: await this.sidecar.seen() };
  }

  async close(): Promise<void> {
    for (const server of this.#servers) await server.close();
    for (const nameserver of this.#nameservers) nameserver.close();
    await this.sidecar.close();
    this.redirector.close();
    this.programs[Symbol.dispose]();
    this.behind.close();
    this.lab.close();
  }
}

export const BEHIND = {
  pod: { 4: "10.77.0.2", 6: "fd77::2" },
  other: { 4: "10.77.0.1", 6: "fd77::1" },
} as const;

function secondInterface(lab: NetnsLab): HeldNetns {
  const binding = native();
  const behind = createNetns();
  binding.vethAdd(behind.fd, "eth0", "net1", lab.pod.netns.fd);
  for (const [netns, name, addresses] of [
    [behind, "eth0", BEHIND.other],
    [lab.pod.netns, "net1", BEHIND.pod],
  ] as const) {
    binding.linkUp(netns.fd, name);
    for (const family of FAMILIES) binding.addressAdd(netns.fd, name, addresses[family], family === 4 ? 24 : 64);
  }
  const oif = binding.links(behind.fd).find(({ name }) => name === "eth0")?.index ?? 0;
  for (const family of FAMILIES) {
    const dst = family === 4 ? "0.0.0.0" : "::";
    const gateway = BEHIND.pod[family];
    binding.routeReplace(behind.fd, { family, table: 254, type: "unicast", dst, prefix: 0, oif, gateway });
  }
  return behind;
}
