// SPDX-License-Identifier: Apache-2.0
import { basename } from "node:path";
import type { Pod } from "../core/pod.ts";
import type { ManualClaim } from "../core/ports/manual.ts";

/** What eligibility says of it. */
export function manualEligibility({ netns }: ManualClaim) {
  return { verdict: "ambient", reason: "manual", detail: `captured by hand: ${netns}` } as const;
}

/** As a pod, for whoever works on pods. */
export function podOf({ uid, netns, ips, workload }: ManualClaim): Pod {
  return {
    uid,
    namespace: workload?.namespace ?? "manual",
    name: workload?.name ?? basename(netns),
    nodeName: "",
    serviceAccount: workload?.serviceAccount ?? "",
    labels: {},
    annotations: {},
    phase: "Running",
    ips,
    hostNetwork: false,
    runtimeClass: undefined,
    containers: [],
    initContainers: [],
    proxy: undefined,
    initFailures: undefined,
    containerIds: [],
    resourceVersion: "",
    deleting: false,
    createdAt: undefined,
    dnsPolicy: "",
    dnsNameservers: [],
  };
}
