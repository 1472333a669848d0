// SPDX-License-Identifier: Apache-2.0
// Scratch network: a pod and a client on a bridge-less veth pair, each in a netns of its own. Nothing
// has a name in the file system: when the lab is closed, the kernel takes everything away.
import type { AddressFamily } from "../../src/native/binding.ts";
import { native } from "../../src/native/load.ts";
import { createNetns, type HeldNetns } from "../../src/native/netns.ts";
import { run } from "../../src/sys/exec.ts";

export interface Host {
  readonly netns: HeldNetns;
  readonly ipv4: string;
  readonly ipv6: string;
}

/** Address of a host of the lab in one family. */
export function ipOf(host: Host, family: AddressFamily): string {
  return family === 4 ? host.ipv4 : host.ipv6;
}

const PREFIX = { 4: 16, 6: 64 } as const;

/** A pod (`eth0`) and a client behind one veth pair; the client is everything that is not the pod. */
export class NetnsLab implements Disposable {
  readonly pod: Host;
  readonly client: Host;

  private constructor(pod: Host, client: Host) {
    this.pod = pod;
    this.client = client;
  }

  static create(): NetnsLab {
    const pod: Host = { netns: createNetns(), ipv4: "10.66.0.2", ipv6: "fd66::2" };
    const client: Host = { netns: createNetns(), ipv4: "10.66.0.1", ipv6: "fd66::1" };
    // Who forwards asks for neighbours by its link-local address: proving that one unique would take two seconds.
    for (const { netns } of [pod, client]) native().sysctlSet(netns.fd, "net/ipv6/conf/default/accept_dad", "0");
    native().vethAdd(client.netns.fd, "veth0", "eth0", pod.netns.fd);
    for (const [host, name] of [
      [client, "veth0"],
      [pod, "eth0"],
    ] as const) {
      native().linkUp(host.netns.fd, name);
      for (const family of [4, 6] as const) {
        native().addressAdd(host.netns.fd, name, ipOf(host, family), PREFIX[family]);
      }
    }
    const eth0 = native()
      .links(pod.netns.fd)
      .find(({ name }) => name === "eth0");
    if (eth0 === undefined) throw new Error("the lab's pod has no eth0");
    for (const family of [4, 6] as const) {
      native().routeReplace(pod.netns.fd, {
        family,
        table: 254,
        type: "unicast",
        dst: family === 4 ? "0.0.0.0" : "::",
        prefix: 0,
        oif: eth0.index,
        gateway: ipOf(client, family),
      });
    }
    return new NetnsLab(pod, client);
  }

  /** Gives the client one more address, as a remote of its own. */
  remote(family: AddressFamily, address: string): string {
    native().addressAdd(this.client.netns.fd, "veth0", address, PREFIX[family]);
    return address;
  }

  close(): void {
    this.pod.netns.close();
    this.client.netns.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** Output of a program that ran in a netns. */
export async function inNetns(netns: HeldNetns, ...argv: string[]): Promise<string> {
  const { stdout } = await run(argv, { netns: netns.fd, timeoutMs: 20_000, maxBytes: 8 << 20 });
  return stdout;
}
