// SPDX-License-Identifier: Apache-2.0
// What the node's kernel can do and how much of it is left.
import { type Check, fail, ok, skip, warn } from "./check.ts";

/** Parts of the conntrack table in use from which on somebody should know, and new connections are at risk. */
const CONNTRACK_WARN = 0.8;
const CONNTRACK_FAIL = 0.95;

export const KERNEL_CHECKS: readonly Check[] = [
  {
    code: "AMB-101",
    category: "kernel",
    title: "an engine captures a scratch pod, in both directions",
    pre: true,
    fix: "the node needs cgroup2 and a bpffs, or nf_tables with NAT, or iptables; `ambient-cni engines -o wide` has each engine's reason",
    about:
      "Every engine captures a pod of its own in scratch network namespaces, and real connections prove it. None works: no pod of the mesh can be captured here, and ADDs of mesh pods are refused.",
    run: async ({ read }) => {
      const { engines } = await read("engines");
      const works = engines.filter((engine) => engine.works);
      if (works.length > 0) return ok(works.map(({ engine }) => engine).join(", "));
      return fail(engines.map(({ engine, reason }) => `${engine}: ${reason ?? "?"}`).join("; "));
    },
  },
  {
    code: "AMB-102",
    category: "kernel",
    title: "the eBPF engine works",
    pre: true,
    fix: "mount a bpffs at /sys/fs/bpf on the node, or use the chart of this project, which does; kernels before 5.15 have other engines only",
    about:
      "Without it pods are captured by nftables or iptables: slower, and with conntrack entries. Nothing is wrong with that; this tells why.",
    run: async ({ read }) => {
      const ebpf = (await read("engines")).engines.find(({ engine }) => engine === "ebpf");
      if (ebpf === undefined) return skip("this version has no such engine");
      return ebpf.works ? ok("its self-test passed") : warn(ebpf.reason ?? "its self-test failed");
    },
  },
  {
    code: "AMB-103",
    category: "kernel",
    title: "no engine that is used works with a loss",
    pre: true,
    fix: "`ambient-cni engines -o wide` names what is missing; most often /proc/sys can't be written (SELinux), or an old kernel",
    about:
      "An engine may work with less than it should: without sysctls the source-port collision is fixed by conntrack zones, without nft_socket listeners with a mark of their own are not reachable, on hybrid cgroup hosts ztunnel's mark alone tells it from a pod that has CAP_NET_RAW.",
    run: async ({ read }) => {
      const { engine: chosen, engines } = await read("engines");
      const first = engines.find(({ engine, works }) => works && (chosen === null || engine === chosen));
      if (first === undefined) return skip("no engine works");
      return first.losses.length === 0 ? ok(first.engine) : warn(`${first.engine}: ${first.losses.join("; ")}`);
    },
  },
  {
    code: "AMB-107",
    category: "kernel",
    title: "the node's conntrack table has room",
    pre: true,
    fix: "raise net.netfilter.nf_conntrack_max on the node (and its hash size), or find who opens so many connections",
    about:
      "A full table drops new connections of everybody on the node. The eBPF engine makes no entries in pods, the others one for each connection; kube-proxy and most CNIs make some on the node.",
    run: ({ facts }) => {
      const table = facts.conntrack();
      if (table === undefined || table.max === 0) return ok("connections are not tracked on this node");
      const { count, max } = table;
      const used = count / max;
      const evidence = `${count} of ${max} entries (${Math.round(used * 100)}%)`;
      if (used >= CONNTRACK_FAIL) return fail(evidence);
      return used >= CONNTRACK_WARN ? warn(evidence) : ok(evidence);
    },
  },
];
