// SPDX-License-Identifier: Apache-2.0
// Upstream's truth table (istio-cni enablement_selector.go and the gates of its informer).
import { describe, expect, test } from "vitest";
import { DEFAULT_ENABLEMENT_SELECTOR, parseEnablementSelectors } from "../../../src/core/config/selectors.ts";
import { evaluate } from "../../../src/core/eligibility.ts";
import type { Pod } from "../../../src/core/pod.ts";
import { podWith } from "../../support/pod.ts";

const MODE = "istio.io/dataplane-mode";
const rules = {
  enablementSelectors: parseEnablementSelectors(DEFAULT_ENABLEMENT_SELECTOR),
  excludedNamespaces: ["kube-system"],
};
const pod = (over: Partial<Pod> = {}): Pod => podWith({ namespace: "shop", ...over });
const ambient = { [MODE]: "ambient" };
const none = { [MODE]: "none" };
const sidecar = { "sidecar.istio.io/status": "{}" };

describe("the default selectors", () => {
  test.each([
    ["unlabelled pod, unlabelled namespace", {}, {}, "none", "not-selected"],
    ["unlabelled pod, ambient namespace", {}, ambient, "ambient", "selected"],
    ["ambient pod, unlabelled namespace", ambient, {}, "ambient", "selected"],
    ["ambient pod, ambient namespace", ambient, ambient, "ambient", "selected"],
    ["opted-out pod, ambient namespace", none, ambient, "none", "opted-out"],
    ["opted-out pod, unlabelled namespace", none, {}, "none", "opted-out"],
    ["ambient pod, opted-out namespace", ambient, none, "ambient", "selected"],
    ["unlabelled pod, opted-out namespace", {}, none, "none", "not-selected"],
    ["another mode is no opt-out", { [MODE]: "other" }, ambient, "ambient", "selected"],
    ["another mode is no opt-in", { [MODE]: "other" }, {}, "none", "not-selected"],
    ["a gateway or istiod is nothing special", { app: "istiod" }, ambient, "ambient", "selected"],
  ] as const)("%s", (_, labels, namespace, verdict, reason) => {
    expect(evaluate(rules, pod({ labels }), namespace)).toMatchObject({ verdict, reason });
  });
});

describe("what keeps a selected pod out", () => {
  test.each([
    ["host network", { hostNetwork: true }, "none", "host-network"],
    ["phase Succeeded", { phase: "Succeeded" }, "none", "terminal"],
    ["phase Failed", { phase: "Failed" }, "none", "terminal"],
    ["ztunnel, in any namespace", { labels: { app: "ztunnel" } }, "none", "ztunnel"],
    ["an excluded namespace", { namespace: "kube-system" }, "none", "namespace-excluded"],
    [
      "an excluded namespace beats the pod's own label",
      { namespace: "kube-system", labels: ambient },
      "none",
      "namespace-excluded",
    ],
    [
      "the sidecar annotation, whatever its value",
      { annotations: { "sidecar.istio.io/status": "" } },
      "none",
      "sidecar-annotation",
    ],
    [
      "a sidecar that runs its own istio-init",
      { annotations: sidecar, containers: ["istio-proxy"], initContainers: ["istio-init"] },
      "none",
      "sidecar-init",
    ],
    [
      "a sidecar that relies on the plugin",
      { annotations: sidecar, containers: ["app", "istio-proxy"], initContainers: ["istio-validation"] },
      "sidecar",
      "sidecar-labelled",
    ],
    [
      "a native sidecar",
      { annotations: sidecar, initContainers: ["istio-validation", "istio-proxy"] },
      "sidecar",
      "sidecar-labelled",
    ],
    [
      "a sidecar pod in an excluded namespace",
      { annotations: sidecar, containers: ["istio-proxy"], namespace: "kube-system" },
      "none",
      "namespace-excluded",
    ],
  ] as const)("%s", (_, over, verdict, reason) => {
    expect(evaluate(rules, pod(over as Partial<Pod>), ambient)).toMatchObject({ verdict, reason });
  });
});

describe("which injected pods count on the plugin", () => {
  const proxy: NonNullable<Pod["proxy"]> = { uid: undefined, gid: undefined, role: "sidecar", env: {} };
  const injected = { annotations: sidecar, containers: ["app", "istio-proxy"], proxy };
  const annotated = (value: string) => ({ ...sidecar, "sidecar.istio.io/inject": value });
  test.each<[string, Partial<Pod>, string, string]>([
    ["a sidecar", {}, "sidecar", "sidecar"],
    ["one that is labelled for ambient too", { labels: ambient }, "sidecar", "sidecar-labelled"],
    ["one in an opted-out pod", { labels: none }, "sidecar", "sidecar"],
    ["arguments that do not begin with proxy", { proxy: { ...proxy, role: undefined } }, "sidecar", "sidecar"],
    ["a gateway", { proxy: { ...proxy, role: "router" } }, "none", "sidecar-role"],
    ["Envoy switched off", { proxy: { ...proxy, env: { DISABLE_ENVOY: "true" } } }, "none", "sidecar-disabled"],
    ["Envoy not switched off", { proxy: { ...proxy, env: { DISABLE_ENVOY: "no" } } }, "sidecar", "sidecar"],
    ["opted out by label", { labels: { "sidecar.istio.io/inject": "false" } }, "none", "sidecar-opted-out"],
    ["opted out by annotation", { annotations: annotated("0") }, "none", "sidecar-opted-out"],
    [
      "opted in by label, out by annotation",
      { labels: { "sidecar.istio.io/inject": "true" }, annotations: annotated("false") },
      "sidecar",
      "sidecar",
    ],
    ["an opt-out that Go would not read", { annotations: annotated("disabled") }, "sidecar", "sidecar"],
    ["a container istio-init among the others", { containers: ["istio-init", "istio-proxy"] }, "none", "sidecar-init"],
    ["host network", { hostNetwork: true }, "none", "host-network"],
    ["a label app=ztunnel", { labels: { app: "ztunnel" } }, "sidecar", "sidecar"],
  ])("%s", (_, over, verdict, reason) => {
    const seen = evaluate(rules, pod({ ...injected, ...over }), {});
    expect(seen).toMatchObject({ verdict, reason });
  });

  test("in a namespace that is labelled for ambient it is the same, and says so", () => {
    expect(evaluate(rules, pod(injected), ambient)).toEqual({
      verdict: "sidecar",
      reason: "sidecar-labelled",
      detail: expect.stringMatching(
        /^annotation .* and container istio-proxy; labelled for ambient too, but no injected pod is captured$/,
      ),
    });
    const gateway = pod({ ...injected, proxy: { ...proxy, role: "router" } });
    expect(evaluate(rules, gateway, ambient)).toMatchObject({
      verdict: "none",
      reason: "sidecar-role",
      detail: expect.stringContaining("labelled for ambient too"),
    });
    expect(evaluate(rules, pod({ ...injected, labels: none }), ambient).reason).toBe("sidecar");
  });

  test("its namespace need not be known, and the mesh's selectors do not matter", () => {
    expect(evaluate({ ...rules, enablementSelectors: [] }, pod(injected), undefined).verdict).toBe("sidecar");
  });
});

describe("what does not keep it out", () => {
  test.each([
    ["a container that is only named istio-proxy", { containers: ["istio-proxy"] }],
    ["phase Pending", { phase: "Pending" }],
    ["phase Unknown", { phase: "Unknown" }],
    ["no address yet", { ips: [] }],
    ["a state annotation", { annotations: { "ambient.istio.io/redirection": "disabled" } }],
    ["a runtime class", { runtimeClass: "kata" }],
  ] as const)("%s", (_, over) => {
    expect(evaluate(rules, pod(over as Partial<Pod>), ambient)).toMatchObject({ verdict: "ambient" });
  });
});

test("an unknown namespace: neither in the mesh nor refused by it", () => {
  expect(evaluate(rules, pod({ labels: ambient }), undefined)).toMatchObject({
    verdict: "none",
    reason: "namespace-unknown",
    detail: "namespace shop is not known yet",
  });
});

test("no selector matches nothing, an empty selector everything", () => {
  const without = { ...rules, enablementSelectors: [] };
  expect(evaluate(without, pod({ labels: ambient }), ambient).verdict).toBe("none");
  const all = { ...rules, enablementSelectors: parseEnablementSelectors("- {}") };
  expect(evaluate(all, pod(), {})).toMatchObject({
    verdict: "ambient",
    detail: "pod everything; namespace everything",
  });
});

test("both halves of one selector must match, and one of several is enough", () => {
  const two = {
    ...rules,
    enablementSelectors: parseEnablementSelectors(
      "- podSelector: {matchLabels: {a: b}}\n  namespaceSelector: {matchLabels: {c: d}}\n- podSelector: {matchExpressions: [{key: e, operator: Exists}]}",
    ),
  };
  expect(evaluate(two, pod({ labels: { a: "b" } }), {}).verdict).toBe("none");
  expect(evaluate(two, pod(), { c: "d" }).verdict).toBe("none");
  expect(evaluate(two, pod({ labels: { a: "b" } }), { c: "d" }).verdict).toBe("ambient");
  expect(evaluate(two, pod({ labels: { e: "" } }), {}).verdict).toBe("ambient");
});
