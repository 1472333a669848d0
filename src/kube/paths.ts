// SPDX-License-Identifier: Apache-2.0

export const PODS_PATH = "/api/v1/pods";
export const NAMESPACES_PATH = "/api/v1/namespaces";
export const POLICIES_PATH = "/apis/networking.k8s.io/v1/networkpolicies";

/** Path of a pod or of its subresource; names are escaped, they may come from a CNI request. */
export function podPath(namespace: string, name: string, subresource?: string): string {
  return [`${NAMESPACES_PATH}/${segment(namespace)}/pods/${segment(name)}`, subresource]
    .filter((part) => part !== undefined)
    .join("/");
}

export function nodePath(name: string): string {
  return `/api/v1/nodes/${segment(name)}`;
}

export function daemonSetPath(namespace: string, name: string): string {
  return `/apis/apps/v1/namespaces/${segment(namespace)}/daemonsets/${segment(name)}`;
}

/** Path of a namespace's Events, or of one of them. */
export function eventsPath(namespace: string, name?: string): string {
  const events = `${NAMESPACES_PATH}/${segment(namespace)}/events`;
  return name === undefined ? events : `${events}/${segment(name)}`;
}

/** One path segment. `.` and `..` would be resolved away on the path to the server, so they are refused. */
function segment(text: string): string {
  if (text === "" || text === "." || text === "..") throw new Error(`not a Kubernetes name: ${JSON.stringify(text)}`);
  return encodeURIComponent(text);
}
