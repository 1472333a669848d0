// SPDX-License-Identifier: Apache-2.0
// The agent, its view of the cluster, and ztunnel at its socket.
import type { StatusReport } from "../../core/report/status.ts";
import { type Check, fail, ok, skip, warn } from "./check.ts";

type Ztunnel = NonNullable<StatusReport["ztunnels"]>[number];

/** A watch of the API server's that is older than its own time limit is a dead one, in seconds. */
const WATCH_OLD = 900;

/** What went wrong at ztunnel's socket is news for so long, in seconds. */
const TROUBLE_LATELY = 600;

export const AGENT_CHECKS: readonly Check[] = [
  {
    code: "AMB-301",
    category: "ztunnel",
    title: "a ztunnel is connected and has the node's pods",
    pre: false,
    fix: "check that a ztunnel pod runs on this node and mounts the directory of the ZDS socket (/var/run/ztunnel)",
    about: "Without one, new pods of the mesh wait, and connections of captured pods are refused.",
    run: async ({ read }) => {
      const { ztunnels } = await read("status");
      if (ztunnels === null) return skip("only the agent knows");
      const ready = ztunnels.filter((one) => one.ready);
      const peers = ztunnels.map(peerText).join(", ");
      if (ready.length > 0) return ok(peers);
      return fail(ztunnels.length === 0 ? "none is connected" : `none has its snapshot: ${peers}`);
    },
  },
  {
    code: "AMB-302",
    category: "ztunnel",
    title: "ztunnel and the agent get along",
    pre: false,
    fix: "by the word that is named: not_root: something other than ztunnel connects; hello_version: this ztunnel speaks a version of ZDS that the agent does not; refused: the log of ztunnel says why; ack_timeout: ztunnel hangs",
    about:
      "What last went wrong at ztunnel's socket: a peer that was turned away (not root, too many), one whose connection was ended for what it said or did not say, or a workload that it refused. It is warned of for ten minutes after. The version of ztunnel itself can't be told: ZDS has only a version of its own.",
    run: async ({ read }) => {
      const { ztunnels, ztunnelTrouble: trouble } = await read("status");
      if (ztunnels === null || trouble === undefined) return skip("only the agent knows");
      if (trouble === null) return ok("nothing went wrong since the agent started");
      const { reason, detail, secondsAgo } = trouble;
      const evidence = `${reason}: ${detail}, ${secondsAgo} s ago`;
      return secondsAgo <= TROUBLE_LATELY ? warn(evidence) : ok(`the last time ${evidence}`);
    },
  },
  {
    code: "AMB-303",
    category: "ztunnel",
    title: "ztunnel answers",
    pre: false,
    fix: "look at the log of this node's ztunnel pod, and at what has stopped its process; when it goes on like this, delete that pod: the next one takes its place",
    about:
      "A ztunnel that is stopped or hangs keeps its connection to the agent and its listeners, so that nothing refuses what is sent to them: connections of captured pods hang. ZDS has no question by which to find that out. The agent looks every few seconds at what the kernel shows: whether a process of a ztunnel that it has met is stopped (T in /proc/PID/stat), and whether connections wait at a listener of ztunnel's in a captured pod while none is seen accepted, for at least three seconds; one that is overloaded so far that its queues stay full looks the same. One that hangs while nobody connects is not noticed: `ambient-cni verify` would.",
    run: async ({ read }) => {
      const { ztunnelStuck: signs } = await read("status");
      if (signs === undefined) return skip("only the agent knows");
      if (signs.length === 0) return ok("no process of it is stopped, and no connection waits to be accepted");
      return fail(signs.map(({ detail, seconds }) => `${detail}, for ${seconds} s`).join("; "));
    },
  },
  {
    code: "AMB-601",
    category: "agent",
    title: "the agent answers",
    pre: false,
    fix: "kubectl -n istio-system logs ds/istio-cni-node; captured pods stay captured without it, new ones of the mesh wait",
    about: "Without the agent nothing is repaired and no new pod of the mesh starts; what is captured goes on.",
    run: async ({ read }) => {
      const { source, version } = await read("status");
      return source.from === "kernel" ? fail(source.note) : ok(`version ${version ?? "?"}`);
    },
  },
  {
    code: "AMB-602",
    category: "agent",
    title: "the agent's view of the cluster is fresh",
    pre: false,
    fix: "check the API server, and that the service account istio-cni may list and watch pods and namespaces",
    about:
      "It decides from its caches. While no watch is open, changed labels and new namespaces are not heard of; an account that is not let in (401, 403) ends in the same.",
    run: async ({ read }) => {
      const { kubernetes } = await read("status");
      if (kubernetes === null) return skip("only the agent watches the cluster");
      const unsynced = kubernetes.filter(({ synced }) => !synced).map(({ resource }) => resource);
      if (unsynced.length > 0) return fail(`no complete list of ${unsynced.join(" and ")}`);
      const blind = kubernetes.filter(({ watchAgeSeconds }) => watchAgeSeconds === null || watchAgeSeconds > WATCH_OLD);
      if (blind.length > 0) return warn(`no live watch of ${blind.map(({ resource }) => resource).join(" and ")}`);
      return ok(kubernetes.map(({ resource, size }) => `${size} ${resource}`).join(", "));
    },
  },
  {
    code: "AMB-603",
    category: "agent",
    title: "what is pinned belongs to pods that live",
    pre: false,
    fix: "nothing while the agent runs: it collects them every 30 s; `ambient-cni remove` does so without it",
    about:
      "The eBPF engine's state outlives the agent on the node's bpffs. An entry of a pod that has gone while no agent ran takes room, and nothing else.",
    run: async ({ facts }) => {
      const pinned = await facts.pinned();
      if (typeof pinned === "string") return skip(pinned);
      const { pods, stale } = pinned;
      return stale === 0 ? ok(`${pods} pods`) : warn(`${stale} of ${pods} belong to no process of the node`);
    },
  },
];

function peerText({ id, pid, uid, protocol, seconds, ready, acked }: Ztunnel): string {
  const who = [
    ...(pid > 0 ? [`pid ${pid}`] : []),
    ...(uid === undefined ? [] : [`uid ${uid}`]),
    ...(protocol === undefined ? [] : [protocol === 0 ? "no hello yet" : `ZDS v${protocol}`]),
    ...(seconds === undefined ? [] : [`for ${seconds} s`]),
    ready ? `${acked} pods acked` : "without its snapshot",
  ];
  return `connection ${id}: ${who.join(", ")}`;
}
