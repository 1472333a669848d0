// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from "vitest";
import { pluginEntry } from "../../../install/plugin-entry.ts";
import type { LogLevel } from "../../../src/core/config/config.ts";

const CONFIG = {
  ambientEnabled: true,
  agentAway: "namespace" as const,
  enablementSelectors: [
    {
      podSelector: { requirements: [{ key: "istio.io/dataplane-mode", operator: "In" as const, values: ["ambient"] }] },
      namespaceSelector: { requirements: [] },
    },
    {
      podSelector: { requirements: [{ key: "skip", operator: "DoesNotExist" as const, values: [] }] },
      namespaceSelector: { requirements: [{ key: "team", operator: "NotIn" as const, values: ["a", "b"] }] },
    },
  ],
  excludedNamespaces: ["kube-system"],
  logLevels: new Map<string, LogLevel>([["default", "warn"]]),
  nativeNftables: false,
  podNamespace: "istio-system",
  runDir: "/var/run/istio-cni",
};

describe("pluginEntry", () => {
  it("has upstream's keys, sorted as upstream writes them, and agent_away", () => {
    expect(JSON.stringify(pluginEntry(CONFIG), undefined, 1)).toBe(
      JSON.stringify(
        {
          agent_away: "namespace",
          ambient_enabled: true,
          cni_agent_run_dir: "/var/run/istio-cni",
          enable_ambient_detection_retry: true,
          enablement_selectors: [
            {
              podSelector: {
                matchExpressions: [{ key: "istio.io/dataplane-mode", operator: "In", values: ["ambient"] }],
              },
              namespaceSelector: {},
            },
            {
              podSelector: { matchExpressions: [{ key: "skip", operator: "DoesNotExist" }] },
              namespaceSelector: { matchExpressions: [{ key: "team", operator: "NotIn", values: ["a", "b"] }] },
            },
          ],
          exclude_namespaces: ["kube-system"],
          native_nftables: false,
          plugin_log_level: "warn",
          pod_namespace: "istio-system",
          type: "istio-cni",
        },
        undefined,
        1,
      ),
    );
  });

  it("gives the plugin the level of its own scope", () => {
    const logLevels = new Map<string, LogLevel>([
      ["default", "warn"],
      ["cni-plugin", "debug"],
    ]);
    expect(pluginEntry({ ...CONFIG, logLevels })).toMatchObject({ plugin_log_level: "debug" });
    expect(pluginEntry({ ...CONFIG, logLevels: new Map() })).toMatchObject({ plugin_log_level: "info" });
  });
});
