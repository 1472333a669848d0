// SPDX-License-Identifier: Apache-2.0
import { expect, test } from "vitest";
import { systemClock } from "../../../src/core/clock.ts";
import type { PodRef } from "../../../src/core/ports/cluster.ts";
import { Annotator } from "../../../src/kube/annotate.ts";
import { KubeClient } from "../../../src/kube/client.ts";
import { inClusterCredentials } from "../../../src/kube/credentials.ts";
import { type Fault, isVerb } from "../../fakes/apiserver.ts";
import { CHART_RULES, ClusterHarness } from "./cluster-harness.ts";
import { StepClock } from "./step-clock.ts";
import { until } from "./until.ts";

/** An annotator whose waits the test counts and skips; the network runs in real time. */
async function stepped() {
  const harness = await ClusterHarness.create();
  const clock = new StepClock();
  const client = new KubeClient({
    credentials: inClusterCredentials({
      host: "127.0.0.1",
      port: String(harness.server.port),
      directory: harness.scratch.file("sa"),
    }),
    clock: systemClock,
    logger: harness.logger,
    userAgent: "test",
  });
  const { signal } = new AbortController();
  const annotator = new Annotator({ client, clock, random: () => 0.5, signal });
  const waits: number[] = [];
  return {
    server: harness.server,
    harness,
    waits,
    /** Annotates a pod, skipping every wait. */
    async annotate(pod: PodRef) {
      let settled = false;
      const outcome = annotator.annotate(pod, "enabled").finally(() => {
        settled = true;
      });
      outcome.catch(() => undefined);
      for (;;) {
        await until(() => settled || clock.asleep, "neither settled nor asleep");
        if (settled) return outcome;
        waits.push(await clock.sleeping());
        clock.advance(waits.at(-1) ?? 0);
      }
    },
    async [Symbol.asyncDispose]() {
      await client.close();
      await harness[Symbol.asyncDispose]();
    },
  };
}

test("sets and removes the annotation by a merge patch of pods/status that names the uid", async () => {
  await using h = await ClusterHarness.create();
  const pod = h.pod("a");
  expect(await h.cluster.annotate(pod, "enabled")).toBe("patched");
  expect(h.annotation("a")).toBe("enabled");
  const [patch] = h.server.requests;
  expect(patch?.path).toBe("/api/v1/namespaces/shop/pods/a/status");
  expect(patch?.contentType).toBe("application/merge-patch+json");
  expect(patch?.body).toEqual({
    metadata: { uid: pod.uid, annotations: { "ambient.istio.io/redirection": "enabled" } },
  });
  expect(await h.cluster.annotate(pod, "pending")).toBe("patched");
  expect(h.annotation("a")).toBe("pending");
  expect(await h.cluster.annotate(pod, null)).toBe("patched");
  expect(h.annotation("a")).toBeUndefined();
  // Removing what is not there is no failure.
  expect(await h.cluster.annotate(pod, null)).toBe("patched");
});

test("a pod that is gone", async () => {
  await using h = await ClusterHarness.create();
  const pod = h.pod("a");
  h.server.delete("Pod", "shop", "a");
  expect(await h.cluster.annotate(pod, null)).toBe("gone");
});

test("a successor of the same name is not touched", async () => {
  await using h = await ClusterHarness.create();
  const old = h.pod("web-0");
  h.server.delete("Pod", "shop", "web-0");
  const successor = h.pod("web-0");
  await h.cluster.annotate(successor, "enabled");
  expect(await h.cluster.annotate(old, null)).toBe("gone");
  expect(h.annotation("web-0")).toBe("enabled");
});

test("a server that calls a foreign uid invalid (422) says gone too", async () => {
  await using h = await ClusterHarness.create();
  const old = h.pod("web-0");
  h.server.delete("Pod", "shop", "web-0");
  h.pod("web-0");
  h.server.fail({ when: isVerb("patch"), fault: { kind: "status", code: 422 } });
  expect(await h.cluster.annotate(old, null)).toBe("gone");
});

test("422 about our own pod is a failure, told at once", async () => {
  await using h = await ClusterHarness.create();
  const pod = h.pod("a");
  h.server.fail({ when: isVerb("patch"), fault: { kind: "status", code: 422 } });
  await expect(h.cluster.annotate(pod, "enabled")).rejects.toMatchObject({ code: "KUBE_INVALID" });
  expect(h.server.requestsOf("patch")).toHaveLength(1);
});

test.each<[string, Fault]>([
  ["the server is busy", { kind: "status", code: 429, retryAfter: 1 }],
  ["the server fails", { kind: "status", code: 500 }],
  ["the server is away for a moment", { kind: "status", code: 503 }],
  ["the connection is reset", { kind: "reset" }],
  ["the answer is cut", { kind: "resetBody" }],
  ["another writer was faster (409)", { kind: "status", code: 409 }],
])("%s: tried again", async (_what, fault) => {
  await using t = await stepped();
  const pod = t.harness.pod("a");
  t.server.fail({ when: isVerb("patch"), fault, times: 3 });
  expect(await t.annotate(pod)).toBe("patched");
  expect(t.harness.annotation("a")).toBe("enabled");
});

test("the waits double, and Retry-After is heeded", async () => {
  await using t = await stepped();
  const pod = t.harness.pod("a");
  t.server.fail({ when: isVerb("patch"), fault: { kind: "status", code: 500 }, times: 3 });
  t.server.fail({ when: isVerb("patch"), fault: { kind: "status", code: 429, retryAfter: 6 }, times: 1 });
  expect(await t.annotate(pod)).toBe("patched");
  expect(t.waits).toEqual([200, 400, 800, 6_000]);
  expect(t.server.requestsOf("patch")).toHaveLength(5);
});

test("after 20 s it gives up and says how often it tried", async () => {
  await using t = await stepped();
  const pod = t.harness.pod("a");
  t.server.fail({ when: isVerb("patch"), fault: { kind: "status", code: 503 } });
  await expect(t.annotate(pod)).rejects.toMatchObject({
    code: "KUBE_STATUS_503",
    message: expect.stringMatching(/annotation of shop\/a wasn't written in 8 tries/),
  });
  expect(t.waits).toEqual([200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
});

test("no right to patch is told at once, with the remedy", async () => {
  const rules = CHART_RULES.filter((rule) => !rule.resources.includes("pods/status"));
  await using h = await ClusterHarness.create({ rules });
  const pod = h.pod("a");
  await expect(h.cluster.annotate(pod, "enabled")).rejects.toMatchObject({
    code: "KUBE_FORBIDDEN",
    remedy: expect.stringContaining("ClusterRole"),
  });
  expect(h.server.requests).toHaveLength(1);
});

test("stop ends a wait between two tries", async () => {
  await using h = await ClusterHarness.create();
  const pod = h.pod("a");
  h.server.fail({ when: isVerb("patch"), fault: { kind: "status", code: 429, retryAfter: 15 } });
  const call = expect(h.cluster.annotate(pod, "enabled")).rejects.toMatchObject({
    code: expect.stringMatching(/KUBE_/),
  });
  await until(() => h.server.requests.length === 1, "no request");
  await h.cluster.stop();
  await call;
  expect(h.server.requestsOf("patch")).toHaveLength(1);
});

test("two hundred pods at once", async () => {
  await using h = await ClusterHarness.create();
  const pods = Array.from({ length: 200 }, (_, index) => h.pod(`pod-${index}`));
  const results = await Promise.all(pods.map((pod) => h.cluster.annotate(pod, "enabled")));
  expect(new Set(results)).toEqual(new Set(["patched"]));
  for (const { name } of pods) expect(h.annotation(name)).toBe("enabled");
});
