// SPDX-License-Identifier: Apache-2.0

import type { Config } from "../src/core/config/config.ts";
import { PLUGIN_NAME } from "../src/core/constants.ts";
import type { LabelSelector } from "../src/core/selector.ts";
import type { PluginEntry } from "./netconf.ts";

/** Scope whose level the plugin's log gets, as upstream. */
const PLUGIN_SCOPE = "cni-plugin";

type EntryConfig = Pick<
  Config,
  | "ambientEnabled"
  | "agentAway"
  | "enablementSelectors"
  | "excludedNamespaces"
  | "logLevels"
  | "nativeNftables"
  | "podNamespace"
  | "runDir"
>;

/**
 * Our plugin's entry in a chain: upstream's keys (so that either plugin can run under it during a
 * swap) in upstream's order, which is alphabetical, and `agent_away` of ours.
 */
export function pluginEntry(config: EntryConfig): PluginEntry {
  return {
    agent_away: config.agentAway,
    ambient_enabled: config.ambientEnabled,
    cni_agent_run_dir: config.runDir,
    enable_ambient_detection_retry: true,
    enablement_selectors: config.enablementSelectors.map(({ podSelector, namespaceSelector }) => ({
      podSelector: labelSelector(podSelector),
      namespaceSelector: labelSelector(namespaceSelector),
    })),
    exclude_namespaces: [...config.excludedNamespaces],
    native_nftables: config.nativeNftables,
    plugin_log_level: config.logLevels.get(PLUGIN_SCOPE) ?? config.logLevels.get("default") ?? "info",
    pod_namespace: config.podNamespace,
    type: PLUGIN_NAME,
  };
}

/** metav1.LabelSelector; matchLabels are expressions with one value by now. */
function labelSelector(selector: LabelSelector): PluginEntry {
  if (selector.requirements.length === 0) return {};
  return {
    matchExpressions: selector.requirements.map(({ key, operator, values }) => ({
      key,
      operator,
      ...(values.length === 0 ? {} : { values: [...values] }),
    })),
  };
}
