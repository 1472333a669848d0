// SPDX-License-Identifier: Apache-2.0
import { codeOf } from "../../core/errors.ts";
import { type PodReport, podTitle } from "../../core/report/pods.ts";
import type { EffectiveProgram, Link, NativeBinding } from "../../native/binding.ts";
import { findHostNetns } from "../../netns/host.ts";
import { findResidents, type Resident } from "../../netns/residents.ts";
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
    const residents = captured.size === 0 ? [] : await findResidents(config.procDir);
    try {
      const pods = residents.flatMap((resident): PodNetwork[] => {
        const pod = captured.get(resident.podUid ?? resident.containerId ?? "");
        const seen = pod === undefined ? undefined : look(binding, resident, links);
        if (pod === undefined || seen === undefined) return [];
        const { uid, engine } = pod;
        return [
          {
            uid,
            pod: podTitle(pod),
            engine,
            pid: resident.pid,
            ...seen,
            rpDrops: dropsOf(config.procDir, resident.pid),
            connect: programsOf(resident.pid),
          },
        ];
      });
      return {
        interfaces: links.map(({ name }) => name),
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
  outside: readonly Link[],
): Pick<PodNetwork, "ifname" | "mtu" | "outside" | "rpFilter"> | undefined {
  const address = binding.addresses(netns.fd).find(({ scope }) => scope === "global");
  const link = binding.links(netns.fd).find(({ index, loopback }) => index === address?.ifindex && !loopback);
  if (link === undefined) return undefined;
  const end = outside.find((one) => one.kind === "veth" && one.index === link.peer && one.peer === link.index);
  const rpFilter = (name: string) => Number(binding.sysctlGet(netns.fd, `net/ipv4/conf/${name}/rp_filter`));
  return {
    ifname: link.name,
    mtu: link.mtu,
    outside: link.kind === "veth" && end !== undefined ? { ifname: end.name, mtu: end.mtu } : undefined,
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
