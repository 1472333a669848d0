// SPDX-License-Identifier: Apache-2.0
// What other programs have changed of ours, and we have put right again.

export type DriftKind =
  /** A pod's rules, routes, sysctls, filters or links. */
  | "capture"
  /** Rules or routes of a sidecar pod. */
  | "redirection"
  /** Something of ours in a pod that does not belong to the mesh. */
  | "unwanted"
  /** Programs on the node's cgroups, by which all pods are captured. */
  | "hooks"
  /** Rules and elements on the host by which probes reach captured pods. */
  | "probes"
  /** Programs on the node's cgroups that announce probes. */
  | "probe_hooks"
  /** The CNI plugin on the node's disk, and its entry in the configuration. */
  | "plugin"
  | "configuration"
  | "kubeconfig";

export interface DriftRepair {
  readonly what: DriftKind;
  /** `namespace/name` of the pod; undefined: it is the node's. */
  readonly pod: string | undefined;
  /** What was found, in a sentence. */
  readonly detail: string;
  /** Wall clock, ms. */
  readonly at: number;
}

export interface Drift {
  /** Notes and counts a repair. `pod`: `namespace/name`; undefined for what is the node's. */
  repaired(what: DriftKind, pod: string | undefined, detail: string): void;
  /** Notes why what is missing can't be put right; undefined: it can, or nothing is missing. */
  unrepaired(what: DriftKind, detail: string | undefined): void;
  /** What is missing now and can't be put right, with the reason. */
  readonly broken: ReadonlyMap<DriftKind, string>;
  /** Since the agent started. */
  readonly counts: ReadonlyMap<DriftKind, number>;
  readonly last: DriftRepair | undefined;
}
