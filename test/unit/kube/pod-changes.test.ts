// SPDX-License-Identifier: Apache-2.0
// What repair does to pods through the API, and what it is told when somebody was faster.
import { describe, expect, test } from "vitest";
import { DELETION } from "../../../src/kube/access.ts";
import { agentRules } from "../../../src/sandbox/apiserver/access.ts";
import { isVerb } from "../../fakes/apiserver.ts";
import { ClusterHarness } from "./cluster-harness.ts";

/** A server with a pod that is to be deleted, and what the agent knows of it. */
async function withPod() {
  const h = await ClusterHarness.create({ rules: agentRules([DELETION]) });
  const pod = h.pod("a");
  const { resourceVersion = "" } = h.server.get("Pod", "shop", "a")?.metadata ?? {};
  return { h, pod: { ...pod, resourceVersion } };
}

describe("deleteBrokenPod", () => {
  test("deletes the pod that was looked at, by uid and version", async () => {
    const { h, pod } = await withPod();
    await using _ = h;
    expect(await h.cluster.deleteBrokenPod(pod)).toBe("deleted");
    expect(h.server.requests).toMatchObject([
      {
        method: "DELETE",
        path: "/api/v1/namespaces/shop/pods/a",
        body: { kind: "DeleteOptions", preconditions: { uid: pod.uid, resourceVersion: pod.resourceVersion } },
      },
    ]);
  });

  test("404: it is gone already", async () => {
    const { h, pod } = await withPod();
    await using _ = h;
    h.server.delete("Pod", "shop", "a");
    expect(await h.cluster.deleteBrokenPod(pod)).toBe("gone");
  });

  test("409: it has news, or another pod has its name; that one stays", async () => {
    const { h, pod } = await withPod();
    await using _ = h;
    h.server.put({ kind: "Pod", metadata: { name: "a", namespace: "shop", labels: { healthy: "now" } } });
    expect(await h.cluster.deleteBrokenPod(pod)).toBe("changed");
    h.server.delete("Pod", "shop", "a");
    const successor = h.pod("a");
    expect(await h.cluster.deleteBrokenPod(pod)).toBe("changed");
    expect(h.server.get("Pod", "shop", "a")?.metadata.uid).toBe(successor.uid);
  });

  test("anything else is an error with the server's words, once: whoever asks tries again", async () => {
    await using h = await ClusterHarness.create();
    const pod = { ...h.pod("a"), resourceVersion: "1" };
    await expect(h.cluster.deleteBrokenPod(pod)).rejects.toMatchObject({
      status: 403,
      message: expect.stringContaining('cannot delete resource "pods"'),
    });
    h.server.fail({ when: isVerb("delete"), fault: { kind: "status", code: 500, message: "etcd is away" } });
    await expect(h.cluster.deleteBrokenPod(pod)).rejects.toThrow("etcd is away");
    expect(h.server.requests).toHaveLength(2);
  });
});

describe("labelBrokenPod", () => {
  test("404 and 409 are no errors either", async () => {
    await using h = await ClusterHarness.create();
    const pod = h.pod("a");
    expect(await h.cluster.labelBrokenPod({ ...pod, uid: "another" }, "k", "v")).toBe("changed");
    h.server.delete("Pod", "shop", "a");
    expect(await h.cluster.labelBrokenPod(pod, "k", "v")).toBe("gone");
  });
});
