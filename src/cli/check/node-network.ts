// SPDX-License-Identifier: Apache-2.0
import { codeOf } from "../../core/errors.ts";
import { type PodReport, podTitle } from "../../core/report/pods.ts";
import type { EffectiveProgram, Link, NativeBinding } from "../../native/binding.ts";
import { findHostNetns } from "../../netns/host.ts";
import type { Resident } from "../../netns/residents.ts";
import { portions } from "../../netns/scan.ts";
import { reversePathDrops } from "../../sys/netstat.ts";
import { Proc } from "../../sys/proc.ts";
import type { NodeView } from "../source/kernel/node-view.ts";
import type { NodeNetwork, PodNetwork } from "./facts.ts";

const MAIN_TABLE = 254;

/** `seenPods`: pods by the kernel. `programsOf`: what runs at connect() of a process, by its pid in the node's /proc. */
export async function readNetwork(
  view: NodeView,
  seenPods: readonly PodReport[],
  programsOf: (pid: string) => readonly EffectiveProgram[] | undefined,
): Promise<NodeNetwork> {
  const { binding, config } = view;
  const captured = new Map(seenPods.flatMap((pod) => (isOurs(pod.mesh) ? [[pod.uid, pod]] : [])));
  const { handle: host } = findHostNetns(new Proc(config.procDir), false);
  try {
    const links = binding.links(host.fd);
    const ends = new Map(links.flatMap((link) => (link.kind === "veth" ? [[link.index, link]] : [])));
    const residents = captured.size === 0 ? [] : await view.residents.all();
    try {
      const portion = portions();
      const pods: PodNetwork[] = [];
      for (const resident of residents) {
        await portion();
        const pod = captured.get(resident.podUid ?? resident.containerId ?? "");
        const seen = pod === undefined ? undefined : look(binding, resident, pod, ends);
        if (pod === undefined || seen === undefined) continue;
        pods.push({
          uid: pod.uid,
          pod: podTitle(pod),
          engine: pod.engine,
          ...seen,
          rpDrops: dropsOf(config.procDir, resident.pid),
          connect: programsOf(resident.pid),
        });
      }
      return {
        uplink: uplinkOf(binding, host.fd, links),
        rpFilter: Number(binding.sysctlGet(host.fd, "net/ipv4/conf/default/rp_filter")),
        rpDrops: dropsOf(config.procDir, "1"),
        pods,
      };
    } finally {
      for (const { netns } of residents) netns.close();
    }
  } finally {
    host.close();
  }
}

const isOurs = (mesh: string) => mesh === "captured" || mesh === "draining";

function look(
  binding: NativeBinding,
  { netns }: Resident,
  { ips }: PodReport,
  ends: ReadonlyMap<number, Link>,
): Pick<PodNetwork, "ifname" | "mtu" | "outside" | "rpFilter"> | undefined {
  if (ips.length === 0) return undefined;
  const links = binding.links(netns.fd).filter(({ loopback }) => !loopback);
  // Mostly there is one, which then has the addresses.
  const address = links.length === 1 ? undefined : binding.addresses(netns.fd).find(({ scope }) => scope === "global");
  const link = links.length === 1 ? links[0] : links.find(({ index }) => index === address?.ifindex);
  if (link === undefined) return undefined;
  const end = ends.get(link.peer);
  const rpFilter = (name: string) => Number(binding.sysctlGet(netns.fd, `net/ipv4/conf/${name}/rp_filter`));
  return {
    ifname: link.name,
    mtu: link.mtu,
    outside: link.kind === "veth" && end?.peer === link.index ? { ifname: end.name, mtu: end.mtu } : undefined,
    // The larger of the two counts (ip-sysctl).
    rpFilter: Math.max(rpFilter("all"), rpFilter(link.name)),
  };
}

/** That of the node's default route, IPv4's before IPv6's. */
function uplinkOf(binding: NativeBinding, host: number, links: readonly Link[]): NodeNetwork["uplink"] {
  for (const family of [4, 6] as const) {
    const route = binding.routes(host, family, MAIN_TABLE).find(({ prefix, oif }) => prefix === 0 && oif !== 0);
    const link = links.find(({ index }) => index === route?.oif);
    if (link !== undefined) return { ifname: link.name, mtu: link.mtu };
  }
  return undefined;
}

/** What reverse path filtering has dropped in a process's netns; undefined where that can't be seen, or no more. */
export function dropsOf(procDir: string, pid: string): number | undefined {
  try {
    return reversePathDrops(procDir, pid);
  } catch (error) {
    if (["ENOENT", "ESRCH", "EACCES", "EINVAL"].includes(codeOf(error))) return undefined;
    throw error;
  }
}
