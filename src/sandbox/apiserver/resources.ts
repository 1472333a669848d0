// SPDX-License-Identifier: Apache-2.0

export interface Resource {
  /** Empty for the core group. */
  readonly group: string;
  readonly version: string;
  /** Plural, as in paths. */
  readonly plural: string;
  readonly singular: string;
  readonly kind: string;
  readonly namespaced: boolean;
  readonly shortNames: readonly string[];
  readonly subresources: readonly string[];
  /** Names of groups of resources, such as the `all` of `kubectl get all`. */
  readonly categories: readonly string[];
  /** Beyond metadata.name and metadata.namespace. */
  readonly fieldSelectors: readonly string[];
}

const core = {
  group: "",
  version: "v1",
  shortNames: [],
  subresources: [],
  categories: [],
  fieldSelectors: [],
} as const;

/** What this server knows: what the agent uses, and what a person at a playground looks at. */
export const RESOURCES: readonly Resource[] = [
  {
    ...core,
    plural: "pods",
    singular: "pod",
    kind: "Pod",
    namespaced: true,
    shortNames: ["po"],
    subresources: ["status"],
    categories: ["all"],
    fieldSelectors: [
      "spec.nodeName",
      "status.phase",
      "status.podIP",
      "spec.serviceAccountName",
      "spec.hostNetwork",
      "spec.restartPolicy",
      "spec.schedulerName",
      "status.nominatedNodeName",
    ],
  },
  {
    ...core,
    plural: "namespaces",
    singular: "namespace",
    kind: "Namespace",
    namespaced: false,
    shortNames: ["ns"],
    subresources: ["status"],
    fieldSelectors: ["status.phase"],
  },
  {
    ...core,
    group: "networking.k8s.io",
    plural: "networkpolicies",
    singular: "networkpolicy",
    kind: "NetworkPolicy",
    namespaced: true,
    shortNames: ["netpol"],
  },
  {
    ...core,
    plural: "events",
    singular: "event",
    kind: "Event",
    namespaced: true,
    shortNames: ["ev"],
    fieldSelectors: [
      "involvedObject.kind",
      "involvedObject.namespace",
      "involvedObject.name",
      "involvedObject.uid",
      "involvedObject.apiVersion",
      "involvedObject.resourceVersion",
      "involvedObject.fieldPath",
      "reason",
      "reportingComponent",
      "source",
      "type",
    ],
  },
  {
    ...core,
    plural: "serviceaccounts",
    singular: "serviceaccount",
    kind: "ServiceAccount",
    namespaced: true,
    shortNames: ["sa"],
  },
  {
    ...core,
    plural: "nodes",
    singular: "node",
    kind: "Node",
    namespaced: false,
    shortNames: ["no"],
    subresources: ["status"],
    fieldSelectors: ["spec.unschedulable"],
  },
  {
    ...core,
    group: "apps",
    plural: "daemonsets",
    singular: "daemonset",
    kind: "DaemonSet",
    namespaced: true,
    shortNames: ["ds"],
    subresources: ["status"],
    categories: ["all"],
  },
];

export function resourceOfKind(kind: string): Resource | undefined {
  return RESOURCES.find((resource) => resource.kind === kind);
}

export function resourceAt(group: string, version: string, plural: string): Resource | undefined {
  return RESOURCES.find((r) => r.group === group && r.version === version && r.plural === plural);
}

export function apiVersionOf(resource: Resource): string {
  return resource.group === "" ? resource.version : `${resource.group}/${resource.version}`;
}

/** `pods` or `daemonsets.apps`, as messages of the API server write it. */
export function qualified(resource: Resource): string {
  return resource.group === "" ? resource.plural : `${resource.plural}.${resource.group}`;
}
