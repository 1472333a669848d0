// SPDX-License-Identifier: Apache-2.0
// Others who turn what a pod's processes connect to, as socket-level load balancers do.
import type { EffectiveProgram } from "../../native/binding.ts";
import { type Check, ok, skip, warn } from "./check.ts";
import type { PodNetwork, PodsPrograms } from "./facts.ts";

const SHOWN = 5;
const OURS = "ambient_";
const CILIUMS = "cil_";

export const BALANCER_CHECKS: readonly Check[] = [
  {
    code: "AMB-106",
    category: "kernel",
    title: "no program turns a pod's connect() before capture does",
    pre: true,
    fix: "let the balancer leave pods alone: Cilium by socketLB.hostNamespaceOnly=true, Calico by bpfConnectTimeLoadBalancing=Disabled; or let the eBPF engine capture (AMB-102)",
    about:
      "A socket-level load balancer (Cilium's replacement of kube-proxy, Calico's eBPF mode) is an eBPF program at connect(), attached to a cgroup around all pods. It puts a backend's address in place of the Service's. Where it comes first, ztunnel is told the backend: the connection is in the mesh, but the Service's waypoint, its policies and ztunnel's own balancing are passed by. The kernel is asked which programs run for the pods, and in which order: the eBPF engine's own programs, attached further in, come before a balancer's, and ztunnel is told the Service. Rules (nftables, iptables) always come after it. Which destinations a program turns can't be read from it.",
    run: async ({ facts, read }) => {
      const programs = facts.podsPrograms();
      const { pods } = await facts.network();
      const found = pods.length > 0 ? pods.flatMap(precedingIn) : await beforeAnyPod(programs, works);
      const others = names([programs, ...pods].flatMap(({ connect }) => connect ?? []).filter(isForeign));
      const unseen = pods.filter(({ connect }) => connect === undefined);
      if (found.length === 0 && unseen.length > 0) {
        return skip(
          `the cgroup of ${unseen
            .slice(0, SHOWN)
            .map(({ pod }) => pod)
            .join(", ")} was not found`,
        );
      }
      if (others === "") return ok("there is no other");
      if (found.length === 0) return ok(`${others} ${pods.length > 0 ? "comes" : "will come"} after ours`);
      const all = found.flatMap(({ before }) => before);
      const onlyCilium = all.every(({ name }) => name.startsWith(CILIUMS));
      if (onlyCilium && (await facts.cilium())?.socketLbHostOnly === true) {
        return ok(`${names(all)} comes first, but leaves pods alone (BPFSocketLBHostnsOnly)`);
      }
      const more = found.length > SHOWN ? ` and ${found.length - SHOWN} more` : "";
      const where = found.slice(0, SHOWN).map(({ where: pod, before }) => `${names(before)} in ${pod}`);
      return warn(`${where.join(", ")}${more}`);

      async function works(): Promise<boolean> {
        return (await read("engines")).engines.some((engine) => engine.engine === "ebpf" && engine.works);
      }
    },
  },
];

interface Preceding {
  readonly where: string;
  readonly before: readonly EffectiveProgram[];
}

/** For a pod that rules capture, everybody's programs come first. */
function precedingIn({ pod, engine, connect }: PodNetwork): Preceding[] {
  const all = connect ?? [];
  const first = all.findIndex(isOurs);
  const before = (engine === "ebpf" && first >= 0 ? all.slice(0, first) : all).filter(isForeign);
  return before.length === 0 ? [] : [{ where: `${pod} (${engine ?? "?"})`, before }];
}

/** Ours will be attached to the pods' cgroup: after what is there already, and before what is further out. */
async function beforeAnyPod(
  { connect, cgroup, attachedHere }: PodsPrograms,
  ebpfWorks: () => Promise<boolean>,
): Promise<Preceding[]> {
  const foreign = connect.filter(isForeign);
  if (foreign.length === 0) return [];
  const first = connect.findIndex(isOurs);
  const own = first >= 0 ? connect.slice(0, first) : connect.slice(0, attachedHere);
  const before = (await ebpfWorks()) ? own.filter(isForeign) : foreign;
  return before.length === 0 ? [] : [{ where: cgroup, before }];
}

const isOurs = ({ name }: EffectiveProgram) => name.startsWith(OURS);
const isForeign = (program: EffectiveProgram) => !isOurs(program);

function names(programs: readonly EffectiveProgram[]): string {
  return [
    ...new Set(programs.map(({ id, name }) => `${name === "" ? "a program without a name" : name} (id ${id})`)),
  ].join(", ");
}
