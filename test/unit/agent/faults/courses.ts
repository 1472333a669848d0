// SPDX-License-Identifier: Apache-2.0
import type { Config } from "../../../../src/core/config/config.ts";
import { AMBIENT, type FaultNode, type NodePod } from "./fault-node.ts";

export interface Course {
  readonly config?: Partial<Config>;
  /** How late the watch is, in ms. */
  readonly lag?: number;
  /** What holds before; the pod that it is about. */
  readonly given: (node: FaultNode) => NodePod | undefined;
  readonly change: (node: FaultNode, pod: NodePod) => Promise<void> | void;
}

const NONE = { "istio.io/dataplane-mode": "none" };
const SIDECAR = {
  annotations: { "sidecar.istio.io/status": "" },
  containers: ["app", "istio-proxy"],
  labels: {},
} as const;

export const COURSES: Readonly<Record<string, Course>> = {
  "a pod starts": {
    given: () => undefined,
    change: (node) => node.startPod(node.schedule("web")),
  },
  "a pod starts of which the watch tells late": {
    lag: 1000,
    given: () => undefined,
    change: (node) => node.startPod(node.schedule("web")),
  },
  "a pod starts whose sandbox is replaced": {
    given: (node) => node.run("web"),
    change: async (node, pod) => {
      node.takeDown(pod);
      await node.startPod(pod);
    },
  },
  "a running pod is labelled": {
    given: (node) => node.run("web", { labels: NONE }),
    change: (node, pod) => node.change(pod, { labels: AMBIENT }),
  },
  "a pod loses its label while connections are open": {
    given: (node) => node.run("web"),
    change: async (node, pod) => {
      node.parts.dataplane.proxied = 1;
      node.change(pod, { labels: NONE });
      await node.clock.pause(350);
      node.parts.dataplane.proxied = 0;
    },
  },
  "a pod is deleted": {
    given: (node) => node.run("web"),
    change: (node, pod) => node.remove(pod),
  },
  "a pod is deleted and made again": {
    given: (node) => node.run("web"),
    change: async (node, pod) => {
      await node.remove(pod);
      const next = node.schedule("web");
      next.ip = pod.ip;
      await node.startPod(next);
    },
  },
  "a pod ends": {
    given: (node) => node.run("web"),
    change: async (node, pod) => {
      pod.going = true;
      node.takeDown(pod);
      node.change(pod, { phase: "Succeeded" });
      await node.clock.pause(100);
      node.delete(pod);
    },
  },
  "a pod ends while no agent runs": {
    given: (node) => node.run("web"),
    change: (node, pod) => {
      node.kill();
      pod.going = true;
      node.takeDown(pod);
      node.change(pod, { phase: "Succeeded" });
    },
  },
  "a namespace leaves the mesh, and comes back at once": {
    given: (node) => node.run("web"),
    change: async (node) => {
      node.parts.cluster.putNamespace("shop", {});
      await node.clock.pause(10);
      node.parts.cluster.putNamespace("shop", AMBIENT);
    },
  },
  "a namespace joins the mesh, and leaves it at once": {
    given: (node) => {
      node.parts.cluster.putNamespace("shop", {});
      return node.run("web");
    },
    change: async (node) => {
      node.parts.cluster.putNamespace("shop", AMBIENT);
      await node.clock.pause(30);
      node.parts.cluster.putNamespace("shop", {});
    },
  },
  "an agent follows another": {
    given: (node) => node.run("web"),
    change: (node) => node.restart(),
  },
  "ambient is switched off": {
    given: (node) => node.run("web"),
    change: async (node) => {
      node.parts.config = { ...node.parts.config, ambientEnabled: false };
      await node.restart();
    },
  },
  "an agent leaves the node for good, and comes back": {
    config: { uncaptureOnRemoval: true },
    given: (node) => node.run("web"),
    change: (node) => depart(node, "none"),
  },
  "an agent gives its pods to istio-cni, and takes them back": {
    given: (node) => node.run("web"),
    change: (node) => depart(node, "other"),
  },
  "ztunnel is replaced": {
    given: (node) => node.run("web"),
    change: async (node) => {
      node.startZtunnel();
      await node.clock.pause(100);
      node.endZtunnel();
    },
  },
  "ztunnel dies": {
    given: (node) => node.run("web"),
    change: async (node) => {
      node.endZtunnel();
      await node.clock.pause(100);
      node.startZtunnel();
    },
  },
  "a pod's settings change": {
    given: (node) => node.run("web"),
    change: (node, pod) => {
      const now = node.parts.cluster.pod(pod.uid)?.annotations ?? {};
      node.change(pod, { annotations: { ...now, "ambient.istio.io/bypass-inbound-capture": "true" } });
    },
  },
  "a pod's address changes": {
    given: (node) => node.run("web"),
    change: (node, pod) => {
      pod.ip = "10.0.0.99";
      node.change(pod, { ips: [pod.ip] });
    },
  },
  "a pod's rules are taken away": {
    given: (node) => node.run("web"),
    change: (node, pod) => {
      pod.captured = undefined;
      node.parts.dataplane.kernel.delete(pod.netns ?? "");
      node.parts.dataplane.touched(pod.netns ?? "");
    },
  },
  "a pod's next sandbox is made when it does not seem to belong to the mesh": {
    given: (node) => node.run("web"),
    change: (node, pod) => {
      node.takeDown(pod);
      pod.netns = node.makeNetns();
      node.sandboxes.inhabited.set(pod.uid, pod.netns);
      node.change(pod, { labels: AMBIENT });
    },
  },
  "a sidecar pod starts": {
    given: () => undefined,
    change: (node) => node.startPod(node.schedule("web", SIDECAR)),
  },
  "a netns is captured by hand for a workload": {
    given: () => undefined,
    change: async (node) => {
      const netns = node.makeNetns();
      node.sandboxes.inhabited.set("experiment", netns);
      const workload = { namespace: "shop", name: "experiment", serviceAccount: "default" };
      const request = { netns, ips: ["10.9.0.2"], engine: null, workload };
      const { life } = node;
      await Promise.race([life.agent.manual.enroll(request).catch(() => undefined), life.died]);
    },
  },
  "a netns is captured by hand and released": {
    given: () => undefined,
    change: async (node) => {
      const netns = node.makeNetns();
      node.sandboxes.inhabited.set("experiment", netns);
      const request = { netns, ips: ["10.9.0.2"], engine: null, workload: null };
      const { life } = node;
      const enrolled = life.agent.manual.enroll(request).then(
        () => true,
        () => false,
      );
      await Promise.race([enrolled, life.died]);
      await node.clock.pause(1000);
      const asked = node.life;
      if (asked.started) await Promise.race([asked.agent.manual.unenroll(netns).catch(() => undefined), asked.died]);
      await node.clock.pause(3000);
      // Whoever got no answer asks again.
      const last = node.life;
      if (last.started) await Promise.race([last.agent.manual.unenroll(netns).catch(() => undefined), last.died]);
    },
  },
};

async function depart(node: FaultNode, successor: "none" | "other"): Promise<void> {
  const { life, clock, parts } = node;
  node.departing = true;
  const departed = life.agent.depart(successor, clock.now() + 25_000);
  await Promise.race([departed, life.died]);
  if (life.alive) {
    for (const { uid, name, netns = "" } of node.pods.values()) {
      const kept = parts.dataplane.kernel.has(netns);
      const heir = parts.probes.heirs?.some((one) => one.uid === uid) ?? false;
      if (kept && !heir) node.trouble(`${name} stays captured, and probes don't reach it`);
    }
    if (life.held.size > 0) node.trouble("an agent that has left holds netns");
    if (life.timers.size > 0) node.trouble("an agent that has left waits for something");
  }
  node.kill();
  await clock.pause(5000);
  node.departing = false;
}

/** What may happen while something else is under way. */
export const CROSSINGS: Readonly<Record<string, (node: FaultNode) => Promise<void> | void>> = {
  "its label goes": (node) => {
    for (const pod of webs(node)) node.change(pod, { labels: NONE });
  },
  "its label comes": (node) => {
    for (const pod of webs(node)) node.change(pod, { labels: AMBIENT });
  },
  "it is deleted": async (node) => {
    await Promise.all(webs(node).map((pod) => node.remove(pod)));
  },
  "its sandbox is replaced": async (node) => {
    for (const pod of webs(node)) {
      if (pod.netns === undefined || pod.going) continue;
      node.takeDown(pod);
      await node.startPod(pod);
    }
  },
  "its address changes": (node) => {
    for (const pod of webs(node)) {
      if (pod.netns === undefined) continue;
      pod.ip = "10.0.0.77";
      node.change(pod, { ips: [pod.ip] });
    }
  },
  "its rules are taken away": (node) => {
    for (const pod of webs(node)) {
      const { dataplane } = node.parts;
      if (dataplane.kernel.get(pod.netns ?? "")?.mode !== "captured") continue;
      pod.captured = undefined;
      dataplane.kernel.delete(pod.netns ?? "");
      dataplane.touched(pod.netns ?? "");
    }
  },
  "ztunnel connects again": (node) => node.cutZtunnel(),
  "ztunnel is replaced": async (node) => {
    node.startZtunnel();
    await node.clock.pause(100);
    node.endZtunnel();
  },
  "ztunnel goes and comes": async (node) => {
    node.endZtunnel();
    await node.clock.pause(700);
    node.startZtunnel();
  },
};

function webs(node: FaultNode): NodePod[] {
  return [...node.pods.values()].filter(({ name }) => name === "web");
}
