// SPDX-License-Identifier: Apache-2.0
import type { Pod } from "../../src/core/pod.ts";

/** A running pod with one container and nothing special; `over` says what the test is about. */
export function podWith(over: Partial<Pod>): Pod {
  return {
    uid: "uid-1",
    namespace: "test",
    name: "web",
    nodeName: "node1",
    serviceAccount: "default",
    labels: {},
    annotations: {},
    phase: "Running",
    ips: ["10.0.0.2"],
    hostNetwork: false,
    runtimeClass: undefined,
    containers: ["app"],
    initContainers: [],
    proxy: undefined,
    initFailures: undefined,
    containerIds: [],
    deleting: false,
    createdAt: undefined,
    dnsPolicy: "ClusterFirst",
    dnsNameservers: [],
    resourceVersion: "1",
    ...over,
  };
}
