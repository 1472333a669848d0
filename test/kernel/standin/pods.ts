// SPDX-License-Identifier: Apache-2.0
// A small node: network namespaces on a bridge, and in some of them the least that sends traffic to
// ztunnel's ports. The rules are the tests' own, so that they judge the stand-in and nothing else.
import { native } from "../../../src/native/load.ts";
import { createNetns, type HeldNetns } from "../../../src/native/netns.ts";
import { run } from "../../../src/sys/exec.ts";

export interface TestPod {
  readonly name: string;
  readonly uid: string;
  readonly netns: HeldNetns;
  readonly ipv4: string;
  readonly ipv6: string;
}

/** What istio-cni's rules do to a captured pod (datapath.md), in the fewest words, without IPv6 neighbours in NAT. */
const CAPTURE = `
table inet standin-test {
  chain mangle-pre {
    type filter hook prerouting priority mangle
    meta mark & 0xfff == 0x539 ct mark set 0x111
  }
  chain mangle-out {
    type route hook output priority mangle
    ct mark 0x111 meta mark set 0x111
  }
  chain nat-pre {
    type nat hook prerouting priority dstnat
    meta mark & 0xfff == 0x539 accept
    iifname "lo" accept
    tcp dport 15008 accept
    meta l4proto tcp redirect to :15006
  }
  chain nat-out {
    type nat hook output priority -100
    meta mark & 0xfff == 0x111 accept
    meta mark & 0xfff == 0x539 accept
    oifname "lo" accept
    udp dport 53 redirect to :15053
    tcp dport 53 redirect to :15053
    meta l4proto tcp redirect to :15001
  }
}
`;

export class TestNode implements Disposable {
  readonly pods = new Map<string, TestPod>();
  private readonly bridge = createNetns();

  /** Pods get 10.77.0.2, .3, ... and fd77::2, ::3, ... in the order of `names`. */
  static async create(...names: readonly string[]): Promise<TestNode> {
    const node = new TestNode();
    await run(["ip", "link", "add", "br0", "type", "bridge"], { netns: node.bridge.fd, timeoutMs: 10_000 });
    native().linkUp(node.bridge.fd, "br0");
    for (const name of names) await node.add(name);
    return node;
  }

  pod(name: string): TestPod {
    const pod = this.pods.get(name);
    if (pod === undefined) throw new Error(`the test has no pod ${name}`);
    return pod;
  }

  /** Sends the pod's traffic to ztunnel's ports. */
  async capture(name: string): Promise<void> {
    const { netns } = this.pod(name);
    native().sysctlSet(netns.fd, "net/ipv4/conf/all/rp_filter", "0");
    native().sysctlSet(netns.fd, "net/ipv4/conf/eth0/rp_filter", "0");
    const [lo] = native()
      .links(netns.fd)
      .filter((link) => link.loopback);
    for (const family of [4, 6] as const) {
      native().ruleAdd(netns.fd, { family, priority: 32764, table: 100, fwmark: 0x111, fwmask: 0xfff });
      native().routeReplace(netns.fd, {
        family,
        table: 100,
        type: "local",
        dst: family === 4 ? "0.0.0.0" : "::",
        prefix: 0,
        oif: lo?.index ?? 1,
        scope: "host",
      });
    }
    await run(["nft", "-f", "-"], { netns: netns.fd, stdin: CAPTURE, timeoutMs: 10_000 });
  }

  [Symbol.dispose](): void {
    for (const { netns } of this.pods.values()) netns.close();
    this.bridge.close();
  }

  private async add(name: string): Promise<void> {
    const number = this.pods.size + 2;
    const netns = createNetns();
    const pod: TestPod = {
      name,
      uid: `uid-${name}`,
      netns,
      ipv4: `10.77.0.${number}`,
      ipv6: `fd77::${number}`,
    };
    this.pods.set(name, pod);
    const port = `v${number}`;
    native().vethAdd(this.bridge.fd, port, "eth0", netns.fd);
    await run(["ip", "link", "set", port, "master", "br0", "up"], { netns: this.bridge.fd, timeoutMs: 10_000 });
    native().linkUp(netns.fd, "eth0");
    native().addressAdd(netns.fd, "eth0", pod.ipv4, 24);
    native().addressAdd(netns.fd, "eth0", pod.ipv6, 64);
    // A service address goes to the wire, and would get no answer there.
    const [eth0] = native()
      .links(netns.fd)
      .filter((link) => link.name === "eth0");
    for (const [family, gateway] of [
      [4, "10.77.0.1"],
      [6, "fd77::1"],
    ] as const) {
      native().routeReplace(netns.fd, {
        family,
        table: 254,
        type: "unicast",
        dst: family === 4 ? "0.0.0.0" : "::",
        prefix: 0,
        oif: eth0?.index ?? 0,
        gateway,
      });
    }
  }
}
