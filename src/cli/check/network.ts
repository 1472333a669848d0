// SPDX-License-Identifier: Apache-2.0
// What the interfaces between a pod and the node do to packets.
import { type Check, type CheckContext, fail, ok, servedPods, skip, warn } from "./check.ts";
import type { NodeNetwork, PodNetwork } from "./facts.ts";

const SHOWN = 5;
const STRICT = 1;
const MODES = ["off", "strict", "loose"];

export const NETWORK_CHECKS: readonly Check[] = [
  {
    code: "AMB-108",
    category: "kernel",
    title: "reverse path filtering drops no packets of captured pods",
    pre: true,
    fix: "net.ipv4.conf.IFNAME.rp_filter=2 (loose) in the pod, by the CNI's `tuning` plugin or the node's net.ipv4.conf.default.rp_filter; or give the pod a route back through the interface that the packets come by",
    about:
      "With rp_filter 1 (strict) the kernel drops an IPv4 packet that comes by another interface than an answer to it would leave by. Capture is no reason for that: with every engine, strict filtering on all of a pod's interfaces and on the node's drops nothing (a test does it with real packets). It does where a pod has a second interface, and its route to callers leads there: their calls, and kubelet's probes, vanish without a word. The kernel counts what it drops in each pod (IPReversePathFilter); one captured pod is proved by real connections meanwhile. 2 (loose) asks only for a route by any interface. IPv6 has no such setting: what a firewall on the node does in its place can't be seen here.",
    run: async (context) => {
      const network = await context.facts.network();
      const { pods, rpFilter } = network;
      if (pods.length === 0)
        return ok(`no pod is captured; pods begin with rp_filter ${rpFilter} (${modeOf(rpFilter)})`);
      const counted = pods.filter(({ rpDrops }) => rpDrops !== undefined);
      if (counted.length === 0) return skip("this kernel does not count what it drops");
      const dropped = await droppedByProof(context, network);
      if (dropped !== undefined) return fail(dropped);
      const before = pods.filter(({ rpDrops = 0 }) => rpDrops > 0);
      if (before.length > 0) return warn(listed(before, (pod) => `${nameOf(pod)}: ${pod.rpDrops} packets so far`));
      const strict = counted.filter((pod) => pod.rpFilter === STRICT).length;
      return ok(`nothing in ${counted.length} of ${pods.length} captured pods, strict in ${strict} of them`);
    },
  },
  {
    code: "AMB-411",
    category: "pods",
    title: "no captured pod sends larger packets than its way takes",
    pre: false,
    fix: "set the MTU in the CNI's configuration to at most that of the node's uplink, less what its tunnel adds, and start the pods again",
    about:
      "A pod whose interface has a larger MTU than the node's end of the pair loses its largest packets there without an ICMP error (a veth drops what is longer than its own MTU): datagrams vanish, TCP crawls along by retransmissions. A test does it with real packets. One that is larger than the node's uplink needs ICMP errors to come back, which firewalls like to drop. HBONE needs nothing of its own: ztunnel's connections are TCP, and keep to the pod's MTU. What lies beyond the node's uplink (a tunnel, a cloud's network) can't be seen from one node.",
    run: async ({ facts }) => {
      const { pods, uplink } = await facts.network();
      const lost = pods.filter(({ mtu, outside }) => outside !== undefined && mtu > outside.mtu);
      if (lost.length > 0) {
        return fail(listed(lost, (pod) => `${nameOf(pod)} has ${pod.mtu}, ${pod.outside?.ifname} ${pod.outside?.mtu}`));
      }
      if (pods.length === 0) return ok("no pod is captured");
      if (uplink === undefined) return skip("the node has no default route, by which its uplink would be known");
      const large = pods.filter(({ mtu }) => mtu > uplink.mtu);
      const single = pods.filter(({ outside }) => outside === undefined).length;
      const alone = single === 0 ? "" : `; ${single} without an end of the node's, compared with it only`;
      if (large.length === 0) return ok(`none of ${pods.length}: ${uplink.ifname} has ${uplink.mtu}${alone}`);
      return warn(listed(large, (pod) => `${nameOf(pod)} has ${pod.mtu}, ${uplink.ifname} ${uplink.mtu}`));
    },
  },
];

/** A sentence about what was dropped while one pod's traffic was proved, a strict one's where there is one. */
async function droppedByProof({ read, verify }: CheckContext, { pods }: NodeNetwork): Promise<string | undefined> {
  const counted = new Map(pods.flatMap((pod) => (pod.rpDrops === undefined ? [] : [[pod.uid, pod]])));
  // In the order of the others that prove a pod: one proof tells them all.
  const candidates = servedPods((await read("pods")).pods).flatMap(({ uid }) => counted.get(uid) ?? []);
  const sample = candidates.find(({ rpFilter }) => rpFilter === STRICT) ?? candidates[0];
  if (sample === undefined) return undefined;
  const { dropped = 0 } = await verify(sample.uid);
  if (dropped <= 0) return undefined;
  return `${nameOf(sample)}: ${dropped} packets of its proof, rp_filter is ${sample.rpFilter} (${modeOf(sample.rpFilter)})`;
}

const modeOf = (rpFilter: number) => MODES[rpFilter] ?? "?";
const nameOf = ({ pod, ifname }: PodNetwork) => `${pod} ${ifname}`;

function listed(pods: readonly PodNetwork[], text: (pod: PodNetwork) => string): string {
  const more = pods.length > SHOWN ? ` and ${pods.length - SHOWN} more` : "";
  return `${pods.slice(0, SHOWN).map(text).join("; ")}${more}`;
}
