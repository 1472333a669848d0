// SPDX-License-Identifier: Apache-2.0
// Without an agent: what the kernel shows of a pod, judged by what the cluster wants of it.
import { expect, test } from "vitest";
import { judged, type Wish } from "../../../src/cli/source/kernel/wanted.ts";
import type { Eligibility } from "../../../src/core/eligibility.ts";
import type { Pod } from "../../../src/core/pod.ts";
import type { PodReport } from "../../../src/core/report/pods.ts";
import { podReport } from "../../fixtures/reports.ts";
import { podWith } from "../../support/pod.ts";

const NOW = "2026-01-01T12:00:00.000Z";
const wish = (verdict: Eligibility["verdict"], changes: Partial<Pod> = {}, reason = "selected"): Wish => ({
  pod: podWith({ namespace: "shop", name: "web", ...changes }),
  eligibility: { verdict, reason, detail: "by its label" } as Eligibility,
});
const seen = (mesh: PodReport["mesh"]): PodReport =>
  podReport("x", {
    namespace: null,
    name: null,
    phase: null,
    mesh,
    reason: "found",
    detail: "nothing is there",
    failure: null,
  });

test.each<[string, PodReport["mesh"], Wish, PodReport["mesh"], string | undefined]>([
  ["wanted and captured", "captured", wish("ambient"), "captured", undefined],
  ["wanted and not captured", "none", wish("ambient"), "failing", "NOT_CAPTURED"],
  ["wanted, and not started yet", "none", wish("ambient", { phase: "Pending" }), "none", undefined],
  ["not wanted and captured", "captured", wish("none"), "unwanted", "NOT_WANTED"],
  ["a sidecar pod, captured", "captured", wish("sidecar"), "unwanted", "NOT_WANTED"],
  ["a sidecar pod without redirection", "none", wish("sidecar"), "sidecar", "NOT_REDIRECTED"],
  ["a sidecar pod", "sidecar", wish("sidecar"), "sidecar", undefined],
  ["not wanted, on its way out", "draining", wish("none"), "draining", undefined],
  ["in a namespace that is not known", "captured", wish("none", {}, "namespace-unknown"), "captured", undefined],
  ["unreadable", "unknown", wish("ambient"), "unknown", undefined],
])("%s", (_, mesh, wanted, shown, code) => {
  const pod = judged(seen(mesh), wanted, NOW);
  expect(pod).toMatchObject({ namespace: "shop", name: "web", mesh: shown });
  expect(pod.failure?.code).toBe(code);
});

test("a pod that the cluster does not have, or that has ended there, stays as it is seen", () => {
  expect(judged(seen("captured"), undefined, NOW)).toEqual(seen("captured"));
  expect(judged(seen("captured"), wish("none", { phase: "Failed" }), NOW)).toEqual(seen("captured"));
});
