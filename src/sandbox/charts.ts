// SPDX-License-Identifier: Apache-2.0
// The environment that istio-cni's chart gives its DaemonSet, for the oldest and the newest chart that
// we stand in for (istio-cni.md 1.2-1.4, packaging.md "Older charts").

export interface Chart {
  readonly version: string;
  readonly hostNetwork: boolean;
  /** terminationGracePeriodSeconds */
  readonly graceSeconds: number;
  readonly env: Readonly<Record<string, string>>;
  readonly args: readonly string[];
}

const SELECTORS = `- podSelector:
    matchLabels: {istio.io/dataplane-mode: ambient}
- podSelector:
    matchExpressions:
    - {key: istio.io/dataplane-mode, operator: NotIn, values: [none]}
  namespaceSelector:
    matchLabels: {istio.io/dataplane-mode: ambient}
`;

const REPAIR = {
  REPAIR_ENABLED: "true",
  REPAIR_REPAIR_PODS: "true",
  REPAIR_DELETE_PODS: "false",
  REPAIR_LABEL_PODS: "false",
  REPAIR_RUN_AS_DAEMON: "true",
  REPAIR_SIDECAR_ANNOTATION: "sidecar.istio.io/status",
  REPAIR_INIT_CONTAINER_NAME: "istio-validation",
  REPAIR_INIT_CONTAINER_EXIT_CODE: "126",
  REPAIR_BROKEN_POD_LABEL_KEY: "cni.istio.io/uninitialized",
  REPAIR_BROKEN_POD_LABEL_VALUE: "true",
};

const NEWEST: Chart = {
  version: "newest",
  hostNetwork: false,
  graceSeconds: 30,
  args: ["--log_output_level=info"],
  env: {
    CURRENT_AGENT_VERSION: "1.31.0",
    AMBIENT_ENABLED: "true",
    AMBIENT_ENABLEMENT_SELECTOR: SELECTORS,
    AMBIENT_DNS_CAPTURE: "true",
    AMBIENT_IPV6: "true",
    AMBIENT_RECONCILE_POD_RULES_ON_STARTUP: "true",
    ENABLE_AMBIENT_DETECTION_RETRY: "false",
    CHAINED_CNI_PLUGIN: "true",
    EXCLUDE_NAMESPACES: "kube-system",
    NATIVE_NFTABLES: "false",
    ALLOW_SWITCH_TO_HOST_NS: "true",
    GOMEMLIMIT: "8000000000",
    ...REPAIR,
  },
};

const OLDEST: Chart = {
  version: "1.24",
  hostNetwork: true,
  graceSeconds: 5,
  args: ["--log_output_level=info"],
  env: {
    AMBIENT_ENABLED: "true",
    AMBIENT_DNS_CAPTURE: "true",
    AMBIENT_IPV6: "true",
    CHAINED_CNI_PLUGIN: "true",
    EXCLUDED_NAMESPACES: "kube-system",
    CNI_NETWORK_CONFIG: "",
    LOG_LEVEL: "info",
    ...REPAIR,
  },
};

/** The chart by name: "newest" or "1.24". @throws Error that lists the names. */
export function chart(name: string): Chart {
  for (const candidate of [NEWEST, OLDEST]) if (candidate.version === name) return candidate;
  throw new Error(`no chart ${JSON.stringify(name)}: known are ${NEWEST.version}, ${OLDEST.version}`);
}
