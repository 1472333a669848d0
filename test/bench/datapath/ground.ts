// SPDX-License-Identifier: Apache-2.0
import type { AddressFamily } from "../../../src/native/binding.ts";
import { native } from "../../../src/native/load.ts";
import type { HeldNetns } from "../../../src/native/netns.ts";
import { inNetns, ipOf, NetnsLab } from "../../support/netns-lab.ts";

export type Direction = "outbound" | "inbound";
export const DIRECTIONS: readonly Direction[] = ["outbound", "inbound"];

/**
 * How many destinations, or client addresses, the connections of one measurement are spread over: one
 * pair of addresses has 28,000 ports, and looking for a free one gets slower as TIME_WAIT fills them.
 */
export const SPREAD = 16;
const REMOTE_PORT = 9000;
const APP_PORT = 8080;

const NAMES = {
  4: { clients: "10.66.0.16", nextClient: (index: number) => `10.66.0.${16 + index}`, listeners: "10.66.128.0" },
  6: {
    clients: "fd66::10",
    nextClient: (index: number) => `fd66::${(16 + index).toString(16)}`,
    listeners: "fd66:1::",
  },
} as const;
const LISTENERS_PREFIX = { 4: 28, 6: 124 } as const;

/** A pod and everything that is not the pod, made anew for each measurement: no TIME_WAIT is inherited. */
export class Ground implements Disposable {
  readonly #lab = NetnsLab.create();

  constructor(readonly family: AddressFamily) {
    const { pod, client } = this.#lab;
    for (const { netns } of [pod, client]) {
      // By default loopback, and only loopback, may reuse TIME_WAIT: that would help some variants.
      native().sysctlSet(netns.fd, "net/ipv4/tcp_tw_reuse", "0");
      native().sysctlSet(netns.fd, "net/ipv4/tcp_max_tw_buckets", "262144");
    }
    // The client's ports and those of the proxy's spoofed legs never meet: where they do, upstream's
    // rules hang, which is measured by a test of its own and not by this benchmark.
    native().sysctlSet(client.netns.fd, "net/ipv4/ip_local_port_range", "16384 32767");
    native().sysctlSet(pod.netns.fd, "net/ipv4/ip_local_port_range", "32768 65535");
    for (let index = 0; index < SPREAD; index++) this.#lab.remote(family, NAMES[family].nextClient(index));
  }

  get lab(): NetnsLab {
    return this.#lab;
  }

  get pod(): HeldNetns {
    return this.#lab.pod.netns;
  }

  /** Where the caller of a direction runs, and where the one who answers. */
  caller(direction: Direction): HeldNetns {
    return direction === "outbound" ? this.#lab.pod.netns : this.#lab.client.netns;
  }

  callee(direction: Direction): HeldNetns {
    return direction === "outbound" ? this.#lab.client.netns : this.#lab.pod.netns;
  }

  /** Destinations as the caller knows them, in the programs' notation. */
  destinations(direction: Direction): string {
    return direction === "outbound"
      ? `${this.#host(ipOf(this.#lab.client, this.family))}:${REMOTE_PORT}+${SPREAD}`
      : `${this.#host(ipOf(this.#lab.pod, this.family))}:${APP_PORT}`;
  }

  /** Source addresses of the clients of the pod. */
  get clients(): string {
    return `${this.#host(NAMES[this.family].clients)}+${SPREAD}:0`;
  }

  /** The server's arguments: where it listens, and what it compares the first byte with. */
  serverArguments(direction: Direction, check: boolean): string[] {
    return direction === "outbound"
      ? ["--port", String(REMOTE_PORT), "--ports", String(SPREAD), ...(check ? ["--check-ports"] : [])]
      : ["--port", String(APP_PORT), ...(check ? ["--check-clients", this.clients] : [])];
  }

  /** The proxy's own listeners, for a caller that goes there by itself. Outbound by as many addresses as destinations. */
  listeners(direction: Direction): string {
    return direction === "outbound"
      ? `${this.#host(NAMES[this.family].listeners)}+${SPREAD}:15001`
      : `${this.#host(ipOf(this.#lab.pod, this.family))}:15006`;
  }

  /**
   * What a pod without redirection needs: local addresses for `listeners`, and the application's replies
   * to the proxy's spoofed leg are kept in the pod by their mark, which they inherit, and port.
   */
  async routeWithoutRedirection(): Promise<void> {
    const { pod } = this.#lab;
    const ip = (...words: string[]) => inNetns(pod.netns, "ip", `-${this.family}`, ...words);
    const listeners = `${NAMES[this.family].listeners}/${LISTENERS_PREFIX[this.family]}`;
    await ip("route", "add", "local", listeners, "dev", "lo", "src", ipOf(pod, this.family));
    native().sysctlSet(pod.netns.fd, "net/ipv4/tcp_fwmark_accept", "1");
    const reply = ["fwmark", "0x539/0xfff", "ipproto", "tcp", "sport", String(APP_PORT)];
    await ip("route", "add", "local", "default", "dev", "lo", "table", "100");
    await ip("rule", "add", "pref", "32764", ...reply, "lookup", "100");
  }

  close(): void {
    this.#lab.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #host(address: string): string {
    return this.family === 4 ? address : `[${address}]`;
  }
}
