// SPDX-License-Identifier: Apache-2.0
import * as v from "valibot";
import { about, HEAD, list } from "./document.ts";

/**
 * Where a pod stands. The agent's words compare what Kubernetes wants with what is; `captured` is the
 * kernel's alone; `manual`: somebody has captured a netns by hand, and it belongs to no pod. For `captured`, steering of ours is in its netns, and nobody could be asked whether it should be.
 */
export const MESH_STATES = [
  "enrolled",
  "captured",
  "pending",
  "failing",
  "draining",
  /** Captured, and does not belong to the mesh. */
  "unwanted",
  "sidecar",
  "manual",
  "none",
  "unknown",
] as const;

const failureSchema = v.object({
  code: about("Stable.", v.string()),
  message: about("A sentence.", v.string()),
  since: about("RFC 3339, of the first failure in a row.", v.string()),
  attempts: about("Failed passes in a row.", v.number()),
  nextTryMs: about("ms until the next one; null while one is under way or waits for an event.", v.nullable(v.number())),
});

export const podSchema = v.object({
  uid: about("Of the Kubernetes object; of a netns that was captured by hand, the word for it.", v.string()),
  namespace: about("null: not known without the agent.", v.nullable(v.string())),
  name: about("null: not known without the agent.", v.nullable(v.string())),
  ips: about("Its addresses.", list(v.string())),
  hostNetwork: about("It has the node's network, and can't be captured.", v.boolean()),
  phase: about("As in the pod's status.", v.nullable(v.string())),
  netns: about("`dev:ino` of the netns.", v.nullable(v.string())),
  mesh: about(
    "Where it stands. captured: steering of ours is in its netns, and nobody could be asked whether it should be; unwanted: captured, and does not belong to the mesh; manual: a netns that somebody has captured by hand.",
    v.picklist(MESH_STATES),
  ),
  engine: about("By which it is captured; null: it is not.", v.nullable(v.string())),
  ztunnel: about(
    "acked: told, and its listeners are bound; listening: they are in the netns.",
    v.nullable(v.picklist(["acked", "listening"])),
  ),
  since: about("RFC 3339: of the state it is in, as far as that is known.", v.nullable(v.string())),
  reason: about("Stable word: why it is (not) in the mesh, or the code of its failure.", v.string()),
  detail: about("The same as a sentence.", v.string()),
  existing: about(
    "Open connections that are older than the capture, and outside the mesh until they close; null: not counted.",
    v.nullable(v.number()),
  ),
  annotation: about("ambient.istio.io/redirection as the agent last wrote or read it.", v.nullable(v.string())),
  failure: about("Why the last pass over it failed; null: it did not.", v.nullable(failureSchema)),
  machine: about(
    "A virtual machine of KubeVirt's, by its labels: whether the interfaces behind which it lives are named to be captured; null: none. Missing where nobody knows the labels.",
    v.nullish(v.picklist(["rerouted", "bypassing"])),
  ),
});

export const podsSchema = v.object({
  ...HEAD,
  pods: about("Of this node; those that have ended are left out.", list(podSchema)),
});

export type PodReport = v.InferOutput<typeof podSchema>;
export type PodsReport = v.InferOutput<typeof podsSchema>;

/** `namespace/name`, or what is known. */
export function podTitle(pod: Pick<PodReport, "uid" | "namespace" | "name">): string {
  return pod.namespace === null || pod.name === null ? pod.uid : `${pod.namespace}/${pod.name}`;
}

/** Reason of a pod whose sandbox has been taken down: nothing is captured, and nothing is there that could be. */
export const SANDBOX_GONE = "SANDBOX_GONE";

/** It belongs to the mesh and runs, and has not come to be enrolled: it waits for ztunnel, or its pass is under way. */
export function isWaiting({ mesh, phase, ips, reason }: PodReport): boolean {
  return mesh === "pending" && phase === "Running" && ips.length > 0 && reason !== SANDBOX_GONE;
}
