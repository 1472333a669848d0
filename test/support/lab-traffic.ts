// SPDX-License-Identifier: Apache-2.0
// Load on a captured pod: whatever happens meanwhile, no connection may fail and none may pass ztunnel by.
import { setTimeout as sleep } from "node:timers/promises";
import { ZTUNNEL_PORT } from "../../src/core/constants.ts";
import { codeOf, messageOf } from "../../src/core/errors.ts";
import { native } from "../../src/native/load.ts";
import { Call, canonical, EchoServer } from "./lab-peer.ts";
import { LabZtunnel } from "./lab-ztunnel.ts";
import { inNetns, ipOf, NetnsLab } from "./netns-lab.ts";

const APP = 8080;
const SERVICE = 80;
const ZTUNNEL = { hboneTo: APP };

/** One direction and family. */
export interface Way {
  readonly family: 4 | 6;
  readonly direction: "in" | "out";
}

export const WAYS: readonly Way[] = ([4, 6] as const).flatMap((family) => [
  { family, direction: "in" },
  { family, direction: "out" },
]);

/** A pod with an application and a ztunnel, and a remote that serves and calls. */
export class TrafficLab {
  readonly #servers: EchoServer[] = [];
  readonly #loads: Load[] = [];
  readonly #former: LabZtunnel[] = [];

  private constructor(
    readonly lab: NetnsLab,
    public ztunnel: LabZtunnel,
  ) {}

  static async create(): Promise<TrafficLab> {
    const lab = NetnsLab.create();
    // A link-local address that appears a second later would be a change of the pod.
    for (const { netns } of [lab.pod, lab.client]) {
      const device = netns === lab.pod.netns ? "eth0" : "veth0";
      native().sysctlSet(netns.fd, `net/ipv6/conf/${device}/addr_gen_mode`, "1");
      await inNetns(netns, "ip", "-6", "address", "flush", "dev", device, "scope", "link");
    }
    const traffic = new TrafficLab(lab, await LabZtunnel.start(lab.pod.netns, ZTUNNEL));
    for (const [host, name, port] of [
      [lab.pod, "app", APP],
      [lab.client, "remote", SERVICE],
    ] as const) {
      traffic.#servers.push(await EchoServer.start(host.netns, name, { family: 6, bind: { address: "::", port } }));
    }
    return traffic;
  }

  /**
   * `port`: where an inbound one calls; 15008 leads to the application too, as HBONE does. `timeout` (ms) of what is
   * not answered at all.
   */
  async open({ family, direction }: Way, { port = APP, timeout = 5000 } = {}): Promise<Call> {
    const { pod, client } = this.lab;
    const call =
      direction === "in"
        ? await Call.open(client.netns, family, ipOf(pod, family), port, { timeout })
        : await Call.open(pod.netns, family, ipOf(client, family), SERVICE, { timeout });
    const { name, local, remote } = await call.greeting();
    if (name !== (direction === "in" ? "app" : "remote")) throw new Error(`${name} answered`);
    // Whoever answers is told the address that was called and the caller's own, through ztunnel or not.
    const [called, caller] = direction === "in" ? [pod, client] : [client, pod];
    const seen = [local.address, remote.address, canonical(call.peer).address, canonical(call.own).address];
    const wanted = [called, caller, called, caller].map((host) => ipOf(host, family));
    if (seen.join() !== wanted.join()) throw new Error(`addresses seen: ${seen.join()}, not ${wanted.join()}`);
    return call;
  }

  /** How many connections ztunnels have accepted. */
  get accepted(): number {
    return [this.ztunnel, ...this.#former].reduce((sum, { accepted }) => sum + accepted.length, 0);
  }

  /** Another ztunnel takes the place of the one that runs; what that has open goes on until the lab ends. */
  async succeedZtunnel(): Promise<void> {
    const former = this.ztunnel;
    this.#former.push(former);
    this.ztunnel = await LabZtunnel.start(this.lab.pod.netns, ZTUNNEL);
    await former.closeListeners();
  }

  /** `each` open connections of every way. */
  async openAll(each = 1): Promise<Call[]> {
    const calls: Call[] = [];
    for (let i = 0; i < each; i++) for (const way of WAYS) calls.push(await this.open(way));
    return calls;
  }

  /** One inbound HBONE connection of each family. */
  async openHbone(): Promise<Call[]> {
    const calls: Call[] = [];
    for (const family of [4, 6] as const) {
      calls.push(await this.open({ family, direction: "in" }, { port: ZTUNNEL_PORT.inboundHbone }));
    }
    return calls;
  }

  /** Begins; ends with the lab at the latest. */
  load(): Load {
    const load = new Load(this);
    this.#loads.push(load);
    return load;
  }

  async close(): Promise<void> {
    for (const load of this.#loads) await load.end();
    for (const server of this.#servers) await server.close();
    for (const ztunnel of [this.ztunnel, ...this.#former]) await ztunnel.close();
    this.lab.close();
  }
}

/** @throws Error that names the connections that are dead. */
export async function expectAlive(calls: readonly Call[], word = "alive"): Promise<void> {
  const dead: string[] = [];
  for (const [i, call] of calls.entries()) {
    try {
      if ((await call.echo(`${word} ${i}`)) !== `${word} ${i}`) dead.push(`${i}: another answer`);
    } catch (error) {
      dead.push(`${i}: ${messageOf(error)}`);
    }
  }
  if (dead.length > 0) throw new Error(`of ${calls.length} connections ${dead.length} are dead: ${dead.join("; ")}`);
}

/** New connections all the time, every way at once, each one short. */
export class Load {
  opened = 0;
  readonly failures: string[] = [];
  #ended = false;
  readonly #workers: readonly Promise<void>[];
  readonly #before: number;

  constructor(private readonly traffic: TrafficLab) {
    this.#before = traffic.accepted;
    this.#workers = [...WAYS, ...WAYS].map((way) => this.#work(way));
  }

  async #work(way: Way): Promise<void> {
    while (!this.#ended) {
      try {
        (await this.traffic.open(way)).close();
        this.opened++;
      } catch (error) {
        this.failures.push(`${way.direction}${way.family} after ${this.opened}: ${codeOf(error)} ${messageOf(error)}`);
        // What is refused at once would leave no time for anything else.
        await sleep(20);
      }
    }
  }

  /** Waits for so many more connections. */
  async more(count: number): Promise<void> {
    const until = this.opened + count;
    while (this.opened < until && this.failures.length < 10) await sleep(2);
  }

  async end(): Promise<{ readonly opened: number; readonly failures: readonly string[]; readonly uncaptured: number }> {
    this.#ended = true;
    await Promise.all(this.#workers);
    const seen = this.traffic.accepted - this.#before;
    return { opened: this.opened, failures: this.failures, uncaptured: this.opened - seen };
  }
}
