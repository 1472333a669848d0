// SPDX-License-Identifier: Apache-2.0
// What repair does to pods through the API, each once: whoever asks tries again.
import type { PodRef } from "../core/ports/cluster.ts";
import type { KubeClient } from "./client.ts";
import { KubeError } from "./kube-error.ts";
import { podPath } from "./paths.ts";

const TIMEOUT_MS = 10_000;

/**
 * Deletes exactly the pod that was looked at: same uid, same version. "changed": it is another one, or has news.
 * @throws KubeError, AgentError KUBE_*
 */
export async function deletePod(
  client: KubeClient,
  pod: PodRef & { readonly resourceVersion: string },
  signal: AbortSignal,
): Promise<"deleted" | "gone" | "changed"> {
  const { uid, resourceVersion } = pod;
  try {
    await client.request({
      method: "DELETE",
      path: podPath(pod.namespace, pod.name),
      body: { apiVersion: "v1", kind: "DeleteOptions", preconditions: { uid, resourceVersion } },
      signal,
      timeoutMs: TIMEOUT_MS,
    });
    return "deleted";
  } catch (error) {
    if (error instanceof KubeError && error.status === 404) return "gone";
    if (error instanceof KubeError && error.status === 409) return "changed";
    throw error;
  }
}

/**
 * Sets a label, through pods/status: the right to that is the smaller one.
 * @throws KubeError, AgentError KUBE_*
 */
export async function labelPod(
  client: KubeClient,
  pod: PodRef,
  key: string,
  value: string,
  signal: AbortSignal,
): Promise<"patched" | "gone" | "changed"> {
  try {
    await client.request({
      method: "PATCH",
      path: podPath(pod.namespace, pod.name, "status"),
      contentType: "application/merge-patch+json",
      body: { metadata: { uid: pod.uid, labels: { [key]: value } } },
      signal,
      timeoutMs: TIMEOUT_MS,
    });
    return "patched";
  } catch (error) {
    if (error instanceof KubeError && error.status === 404) return "gone";
    // Another uid is a conflict, on some servers an invalid object.
    if (error instanceof KubeError && (error.status === 409 || error.status === 422)) return "changed";
    throw error;
  }
}
