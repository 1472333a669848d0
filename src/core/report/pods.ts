// SPDX-License-Identifier: Apache-2.0
import * as v from "valibot";
import { HEAD, list } from "./document.ts";

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
  code: v.string(),
  message: v.string(),
  /** RFC 3339, of the first failure in a row. */
  since: v.string(),
  /** Failed passes in a row. */
  attempts: v.number(),
  /** ms until the next one; null while one is under way or waits for an event. */
  nextTryMs: v.nullable(v.number()),
});

export const podSchema = v.object({
  uid: v.string(),
  /** null: not known without the agent. */
  namespace: v.nullable(v.string()),
  name: v.nullable(v.string()),
  ips: list(v.string()),
  hostNetwork: v.boolean(),
  phase: v.nullable(v.string()),
  /** `dev:ino` of the netns. */
  netns: v.nullable(v.string()),
  mesh: v.picklist(MESH_STATES),
  engine: v.nullable(v.string()),
  /** acked: told, and its listeners are bound; listening: they are in the netns. */
  ztunnel: v.nullable(v.picklist(["acked", "listening"])),
  /** RFC 3339: of the state it is in, as far as that is known. */
  since: v.nullable(v.string()),
  /** Stable word: why it is (not) in the mesh, or the code of its failure. */
  reason: v.string(),
  /** The same as a sentence. */
  detail: v.string(),
  /** Open connections that are older than the capture, and outside the mesh until they close; null: not counted. */
  existing: v.nullable(v.number()),
  /** ambient.istio.io/redirection as the agent last wrote or read it. */
  annotation: v.nullable(v.string()),
  failure: v.nullable(failureSchema),
  /**
   * A virtual machine of KubeVirt's, by its labels: whether the interfaces behind which it lives are named to be
   * captured; null: none. Missing where nobody knows the labels.
   */
  machine: v.nullish(v.picklist(["rerouted", "bypassing"])),
});

export const podsSchema = v.object({ ...HEAD, pods: list(podSchema) });

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
