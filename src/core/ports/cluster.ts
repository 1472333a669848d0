// SPDX-License-Identifier: Apache-2.0
// Kubernetes as this node sees it.
import type { AgentPod, DaemonSet } from "../daemonset.ts";
import type { Stop } from "../disposable.ts";
import type { NodeInfo } from "../placement.ts";
import type { Namespace, Pod } from "../pod.ts";
import type { PlannedChange } from "./plan.ts";

export interface PodChange {
  readonly kind: "upsert" | "delete";
  readonly pod: Pod;
  /** What the cache held before, if anything. */
  readonly previous: Pod | undefined;
}

export interface NamespaceChange {
  readonly kind: "upsert" | "delete";
  readonly namespace: Namespace;
  readonly previous: Namespace | undefined;
}

export interface PodRef {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
}

export interface PodEvent {
  readonly type: "Normal" | "Warning";
  /** UpperCamelCase, e.g. `AmbientEnrollmentFailed`. */
  readonly reason: string;
  readonly message: string;
  /** Who says so; undefined: the agent. */
  readonly reporter?: string;
}

/** Why a watch can't go on where it stopped, so that everything is listed again: the words of the metric. */
export const RELIST_REASONS = ["expired", "version_too_large", "rejected", "malformed", "fruitless"] as const;
export type RelistReason = (typeof RELIST_REASONS)[number];

export type RedirectionState = "enabled" | "pending";

export interface Cluster {
  /** Starts list and watch; resolves when both caches hold one complete list. */
  start(): Promise<void>;
  /** Resolves when every socket is closed. */
  stop(): Promise<void>;
  readonly synced: boolean;
  pods(): IterableIterator<Pod>;
  pod(uid: string): Pod | undefined;
  podNamed(namespace: string, name: string): Pod | undefined;
  namespace(name: string): Namespace | undefined;
  namespaces(): IterableIterator<Namespace>;
  onPod(listener: (change: PodChange) => void): Stop;
  onNamespace(listener: (change: NamespaceChange) => void): Stop;
  /** One live GET, for a CNI request that is newer than the cache. `undefined` = 404. */
  readPod(namespace: string, name: string, signal: AbortSignal): Promise<Pod | undefined>;
  /**
   * Live GETs of what runs the agent. `undefined` = 404. @throws AgentError KUBE_*, KUBE_MALFORMED for an answer
   * that can't be believed.
   */
  readDaemonSet(namespace: string, name: string, signal: AbortSignal): Promise<DaemonSet | undefined>;
  readAgentPod(namespace: string, name: string, signal: AbortSignal): Promise<AgentPod | undefined>;
  readNode(name: string, signal: AbortSignal): Promise<NodeInfo | undefined>;
  /** What `annotate` would send. */
  planAnnotation(pod: PodRef, value: RedirectionState | null): readonly PlannedChange[];
  /**
   * Sets or (null) removes `ambient.istio.io/redirection` through pods/status, with the uid as
   * precondition: a successor of the same name is never touched (`gone`).
   */
  annotate(pod: PodRef, value: RedirectionState | null): Promise<"patched" | "gone">;
  /**
   * Deletes this very version of a pod. "changed": there is news of it. @throws AgentError KUBE_*.
   */
  deleteBrokenPod(pod: PodRef & { readonly resourceVersion: string }): Promise<"deleted" | "gone" | "changed">;
  /** Sets a label of a pod, through pods/status, with the uid as precondition. @throws AgentError KUBE_*. */
  labelBrokenPod(pod: PodRef, key: string, value: string): Promise<"patched" | "gone" | "changed">;
  /** Posts an Event about a pod. Never rejects: no permission (403) is logged once. */
  event(pod: PodRef, event: PodEvent): Promise<void>;
  /** How current the caches are, for people. */
  status(): readonly CollectionStatus[];
}

export interface CollectionStatus {
  readonly resource: string;
  readonly synced: boolean;
  readonly size: number;
  readonly resourceVersion: string | undefined;
  /** Age of the open watch; undefined while there is none. */
  readonly watchAgeSeconds: number | undefined;
  readonly relists: number;
}
