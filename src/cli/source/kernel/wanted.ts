// SPDX-License-Identifier: Apache-2.0
// What the cluster wants of this node's pods, asked once, for those who look while no agent runs.
import { eligibilityOf } from "../../../agent/desire.ts";
import { CONFIG_HASH_ANNOTATION } from "../../../core/constants.ts";
import type { Eligibility } from "../../../core/eligibility.ts";
import { messageOf } from "../../../core/errors.ts";
import { isTerminal, type Pod } from "../../../core/pod.ts";
import type { PodReport } from "../../../core/report/pods.ts";
import { SILENT } from "../silent.ts";
import type { NodeView } from "./node-view.ts";

/** For two lists; without an answer by then the kernel alone is shown, in ms. */
const DEADLINE_MS = 1500;

export interface Wish {
  readonly pod: Pod;
  readonly eligibility: Eligibility;
}

export interface Wanted {
  /** By uid, and by what a static pod's cgroup is called. */
  readonly pods: ReadonlyMap<string, Wish>;
  /** In a sentence, how many were listed, or why none could be. */
  readonly text: string;
}

const asked = new WeakMap<NodeView, Promise<Wanted | undefined>>();

/** Asks once for each view. undefined: this process has no credentials. Never throws: `text` says what went wrong. */
export function askCluster(view: NodeView): Promise<Wanted | undefined> {
  const asking = asked.get(view) ?? ask(view);
  asked.set(view, asking);
  return asking;
}

async function ask({ config, environment }: NodeView): Promise<Wanted | undefined> {
  if (config.kubeconfig === undefined && (environment.KUBERNETES_SERVICE_HOST ?? "") === "") return undefined;
  const { KubeCluster } = await import("../../../kube/cluster.ts");
  const pods = new Map<string, Wish>();
  try {
    const cluster = new KubeCluster({
      nodeName: config.nodeName,
      kubeconfig: config.kubeconfig,
      environment,
      logger: SILENT,
      metrics: { count: nothing, set: nothing, observe: nothing },
    });
    try {
      await within(cluster.start());
      for (const pod of cluster.pods()) {
        const wish = { pod, eligibility: eligibilityOf(config, cluster, pod) };
        for (const id of [pod.uid, pod.annotations[CONFIG_HASH_ANNOTATION]]) if (id !== undefined) pods.set(id, wish);
      }
    } finally {
      await cluster.stop();
    }
    return { pods, text: `${new Set(pods.values()).size} pods listed once` };
  } catch (error) {
    return { pods: new Map(), text: `can't be asked: ${messageOf(error)}` };
  }
}

/** What is in a pod's netns, judged by what the cluster wants. `now`: RFC 3339. */
export function judged(seen: PodReport, wish: Wish | undefined, now: string): PodReport {
  if (wish === undefined || isTerminal(wish.pod)) return seen;
  const { pod, eligibility } = wish;
  const { verdict, reason, detail } = eligibility;
  const known = {
    ...seen,
    namespace: pod.namespace,
    name: pod.name,
    hostNetwork: pod.hostNetwork,
    phase: pod.phase,
  };
  const failed = (code: string, message: string) => ({
    reason: code,
    detail: message,
    failure: { code, message, since: now, attempts: 0, nextTryMs: null },
  });
  // Not knowing is no reason to call it wrong.
  if (reason === "namespace-unknown" || seen.mesh === "unknown" || pod.hostNetwork) return known;
  if (verdict === "ambient" && seen.mesh === "none" && pod.phase === "Running") {
    const message = `belongs to the mesh (${detail}), and nothing of ours captures it: ${seen.detail}`;
    return { ...known, mesh: "failing", ...failed("NOT_CAPTURED", message) };
  }
  if (verdict !== "ambient" && seen.mesh === "captured") {
    return {
      ...known,
      mesh: "unwanted",
      ...failed("NOT_WANTED", `captured, and does not belong to the mesh: ${detail}`),
    };
  }
  if (verdict === "sidecar" && seen.mesh === "none" && pod.phase === "Running") {
    return { ...known, mesh: "sidecar", ...failed("NOT_REDIRECTED", "nothing redirects its traffic into its sidecar") };
  }
  return seen.mesh === "none" ? { ...known, reason, detail } : known;
}

const nothing = () => undefined;

async function within(started: Promise<void>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${DEADLINE_MS} ms`)), DEADLINE_MS);
  });
  try {
    await Promise.race([started, late]);
  } finally {
    clearTimeout(timer);
    started.catch(nothing);
  }
}
