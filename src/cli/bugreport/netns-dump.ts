// SPDX-License-Identifier: Apache-2.0
// A network namespace as the kernel itself tells it, by netlink and without a program: the image has no `ip`, and
// a node may have no `nft`.
import { ROUTE_TABLE, ZTUNNEL_PORT } from "../../core/constants.ts";
import { messageOf } from "../../core/errors.ts";
import type { NativeBinding, SocketInfo } from "../../native/binding.ts";

/** Of one kind; a node's own namespace may have a hundred thousand. */
const MAX_ENTRIES = 1000;
/** main, local, ours and the one of istio-cni's host routing. */
const TABLES = [254, 255, ROUTE_TABLE, 133] as const;

const SYSCTLS = [
  "net/ipv4/tcp_fwmark_accept",
  "net/ipv4/fwmark_reflect",
  "net/ipv6/fwmark_reflect",
  "net/ipv4/tcp_migrate_req",
  "net/ipv4/ip_forward",
  "net/ipv4/ip_local_port_range",
  "net/ipv4/conf/all/rp_filter",
  "net/ipv4/conf/default/rp_filter",
  "net/ipv4/conf/eth0/rp_filter",
  "net/ipv4/conf/all/src_valid_mark",
  "net/ipv4/conf/all/route_localnet",
  "net/ipv4/conf/lo/accept_local",
  "net/ipv6/conf/all/disable_ipv6",
  "net/ipv6/conf/all/forwarding",
  "net/netfilter/nf_conntrack_count",
  "net/netfilter/nf_conntrack_max",
  "net/netfilter/nf_conntrack_tcp_be_liberal",
  "net/netfilter/nf_conntrack_tcp_loose",
  "net/netfilter/nf_conntrack_tcp_timeout_close_wait",
  "net/netfilter/nf_conntrack_tcp_timeout_fin_wait",
] as const;

/** By kind; what can't be read is the reason. Never throws. */
export function netnsDump(binding: NativeBinding, netns: number): Readonly<Record<string, unknown>> {
  return {
    cookie: read(() => binding.netnsCookie(netns)),
    links: read(() => bounded(binding.links(netns))),
    addresses: read(() => bounded(binding.addresses(netns))),
    rules: read(() => bounded(([4, 6] as const).flatMap((family) => binding.rules(netns, family)))),
    routes: read(() =>
      bounded(([4, 6] as const).flatMap((family) => TABLES.flatMap((table) => binding.routes(netns, family, table)))),
    ),
    sysctls: Object.fromEntries(SYSCTLS.map((key) => [key, read(() => binding.sysctlGet(netns, key))])),
    sockets: read(() => sockets(binding, netns)),
    nftables: read(() =>
      bounded(binding.nftTables(netns)).map((table) => {
        if (typeof table !== "string") return table;
        const [family = "", ...name] = table.split(" ");
        return read(() => ({ table, ...binding.nftTable(netns, family, name.join(" ")) }));
      }),
    ),
    xtables: read(() => ([4, 6] as const).map((family) => ({ family, tables: binding.xtables(netns, family) }))),
    bpf: read(() => ({
      skLookup: binding.bpfNetnsLinked(netns),
      filters: Object.fromEntries(
        binding
          .links(netns)
          .slice(0, 16)
          .map(({ name, index }) => [name, read(() => binding.bpfFilterState(netns, index))]),
      ),
    })),
  };
}

/** Listeners and what ztunnel has open, whole; of the application's only how many. */
function sockets(binding: NativeBinding, netns: number): Readonly<Record<string, unknown>> {
  const all = [...binding.sockets(netns, { protocol: "tcp" }), ...binding.sockets(netns, { protocol: "udp" })];
  const ports: readonly number[] = Object.values(ZTUNNEL_PORT);
  const shown = ({ srcPort, dstPort, state, mark }: SocketInfo) =>
    state === 10 || mark !== 0 || ports.includes(srcPort) || ports.includes(dstPort);
  const counts: Record<string, number> = {};
  for (const { protocol, state } of all) {
    const key = `${protocol} state ${state}`;
    counts[key] = (counts[key] ?? 0) + 1;
  }
  return { counts, shown: bounded(all.filter(shown)) };
}

function read<T>(look: () => T): T | string {
  try {
    return look();
  } catch (error) {
    return `? ${messageOf(error)}`;
  }
}

function bounded<T>(all: readonly T[]): readonly (T | string)[] {
  return all.length <= MAX_ENTRIES ? all : [...all.slice(0, MAX_ENTRIES), `... of ${all.length}`];
}
