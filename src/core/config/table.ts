// SPDX-License-Identifier: Apache-2.0
// Every setting there is. docs/config.md is generated from this table, and each row has a test.
import { DEFAULT_RUN_DIR, PROBE_SNAT_IPV4, PROBE_SNAT_IPV6 } from "../constants.ts";
import {
  absolutePath,
  address,
  bool,
  cidrs,
  fieldSelector,
  fileName,
  goMemory,
  groups,
  groupsOrAll,
  integer,
  labelKey,
  labelSelector,
  labelValue,
  logLevels,
  logTargets,
  namespaces,
  oneOf,
  optional,
  port,
  selectors,
  socketPath,
  text,
  unread,
} from "./kinds.ts";
import { DEFAULT_ENABLEMENT_SELECTOR } from "./selectors.ts";
import { DERIVED, envOnly, flagged, flagOnly, plainEnv, type Setting } from "./setting.ts";

const accepted = { status: "accepted" } as const;

export const MESH = {
  ambientEnabled: flagged(
    "Mesh",
    "ambient-enabled",
    bool,
    "false",
    "Off, no pod belongs to the mesh, whatever the selectors say.",
  ),
  enablementSelectors: envOnly(
    "Mesh",
    "AMBIENT_ENABLEMENT_SELECTOR",
    selectors,
    DEFAULT_ENABLEMENT_SELECTOR,
    "Which pods belong to the mesh: a pod does when one entry's podSelector and namespaceSelector both match. Unset is not empty: charts up to 1.26 do not set it, and matching nothing would un-enrol the cluster; explicitly empty matches nothing.",
    { fallbackText: "the chart's two selectors" },
  ),
  excludedNamespaces: envOnly(
    "Mesh",
    "EXCLUDE_NAMESPACES",
    namespaces,
    "",
    "Pods of these namespaces are never captured. EXCLUDED_NAMESPACES is the name in charts up to 1.25.",
    { aliases: ["EXCLUDED_NAMESPACES"] },
  ),
  dnsCapture: envOnly(
    "Mesh",
    "AMBIENT_DNS_CAPTURE",
    bool,
    "false",
    "Captures DNS of pods; the annotation ambient.istio.io/dns-capture of a pod overrides it.",
  ),
  dnsCaptureServers: plainEnv(
    "Mesh",
    "AMBIENT_CNI_DNS_CAPTURE_SERVERS",
    oneOf("all", "resolvconf"),
    "all",
    "all: DNS to any server is captured, as upstream; resolvconf: only to the nameservers of the pod.",
  ),
  ipv6: envOnly("Mesh", "AMBIENT_IPV6", bool, "false", "Captures IPv6 traffic too."),
  excludeOutboundCidrs: plainEnv(
    "Mesh",
    "AMBIENT_CNI_EXCLUDE_OUTBOUND_CIDRS",
    cidrs,
    "",
    "Outbound connections to these networks are not captured, on every pod of the node.",
  ),
  podExcludeOutboundCidrs: plainEnv(
    "Mesh",
    "AMBIENT_CNI_POD_EXCLUDE_OUTBOUND_CIDRS",
    bool,
    "false",
    "Heeds the pod annotation ambient-cni.io/exclude-outbound-cidrs; where it is off, a pod that has it gets a warning.",
  ),
  ownerGroups: plainEnv(
    "Mesh",
    "ISTIO_OUTBOUND_OWNER_GROUPS",
    groupsOrAll,
    "*",
    "Groups whose outbound traffic is redirected into a pod's sidecar.",
  ),
  ownerGroupsExclude: plainEnv(
    "Mesh",
    "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE",
    groups,
    "",
    "Groups whose outbound traffic is not, where that of all others is.",
  ),
};

export const IDENTITY = {
  nodeName: plainEnv("Identity", "NODE_NAME", text, "", "Name of this node; needed when the ambient agent is on."),
  podName: plainEnv("Identity", "POD_NAME", text, "", "Name of the agent's own pod."),
  podNamespace: envOnly(
    "Identity",
    "POD_NAMESPACE",
    text,
    "",
    "Namespace of the agent's own pod and of its DaemonSet.",
  ),
  systemNamespace: plainEnv(
    "Identity",
    "SYSTEM_NAMESPACE",
    text,
    "istio-system",
    "ztunnel is recognised by its label app=ztunnel in any namespace, so nothing depends on this.",
    accepted,
  ),
  kubeconfig: plainEnv(
    "Identity",
    "AMBIENT_CNI_KUBECONFIG",
    optional(absolutePath),
    "",
    "A kubeconfig in place of the service account.",
  ),
  kubernetesHost: plainEnv(
    "Identity",
    "KUBERNETES_SERVICE_HOST",
    text,
    "",
    "Address of the API server; set by kubelet.",
  ),
  kubernetesPort: plainEnv(
    "Identity",
    "KUBERNETES_SERVICE_PORT",
    integer(1, 65535),
    "443",
    "Port of the API server; set by kubelet.",
  ),
  kubernetesProtocol: plainEnv(
    "Identity",
    "KUBERNETES_SERVICE_PROTOCOL",
    oneOf("https"),
    "https",
    "Only https: http is refused, because the agent's token would cross the network in the clear.",
    { status: "refused" },
  ),
};

export const DATAPLANE = {
  engine: plainEnv(
    "Dataplane",
    "AMBIENT_CNI_ENGINE",
    oneOf("auto", "ebpf", "nftables", "iptables"),
    "auto",
    "How traffic is captured: the first of ebpf, nftables, iptables that passes its self-test, or the one named here and for pods that it can't capture the ones after it.",
  ),
  podEngineAnnotation: plainEnv(
    "Dataplane",
    "AMBIENT_CNI_POD_ENGINE",
    bool,
    "false",
    "Heeds the pod annotation ambient-cni.io/engine.",
  ),
  nativeNftables: envOnly(
    "Dataplane",
    "NATIVE_NFTABLES",
    bool,
    "false",
    "Puts nftables before iptables where eBPF can't work; that is the order here anyway.",
  ),
  forceIptablesBinary: plainEnv(
    "Dataplane",
    "FORCE_IPTABLES_BINARY",
    optional(oneOf("legacy", "nft")),
    "",
    "Which iptables the iptables engine runs in pods without rules of either; by default the one that the host uses, if it works. Ignored, with a warning, when NATIVE_NFTABLES is set.",
  ),
  probeSources: plainEnv(
    "Dataplane",
    "AMBIENT_CNI_PROBE_SOURCES",
    oneOf("kubelet", "host"),
    "host",
    "host: any process of the node reaches enrolled pods directly, as upstream; kubelet: only kubelet does.",
  ),
  probeIpv4: envOnly(
    "Dataplane",
    "HOST_PROBE_SNAT_IP",
    address(4),
    PROBE_SNAT_IPV4,
    "IPv4 source address of probes from the node.",
  ),
  probeIpv6: envOnly(
    "Dataplane",
    "HOST_PROBE_SNAT_IPV6",
    address(6),
    PROBE_SNAT_IPV6,
    "IPv6 source address of probes from the node.",
  ),
  awsBranchEni: plainEnv(
    "Dataplane",
    "AMBIENT_ENABLE_AWS_BRANCH_ENI_PROBE",
    bool,
    "true",
    "Host rules for probes to AWS pods with a branch ENI.",
  ),
  switchToHostNetns: plainEnv(
    "Dataplane",
    "ALLOW_SWITCH_TO_HOST_NS",
    bool,
    "false",
    "The agent's pod has a network of its own: the node's is that of the node's pid 1. Otherwise the agent's own is the node's.",
  ),
  drainSeconds: plainEnv(
    "Dataplane",
    "AMBIENT_CNI_DRAIN_SECONDS",
    integer(0, 300),
    "5",
    "How long proxied connections of a pod that leaves the mesh may go on.",
  ),
  existingConnections: plainEnv(
    "Dataplane",
    "AMBIENT_CNI_EXISTING_CONNECTIONS",
    oneOf("keep", "reset"),
    "keep",
    "What happens to connections that are older than their pod's capture. keep: they go on in the clear until they close; reset: both ends see them end, and connect anew through ztunnel.",
  ),
  disableSafeUpgrade: envOnly(
    "Dataplane",
    "AMBIENT_DISABLE_SAFE_UPGRADE",
    bool,
    "false",
    "Gives the CNI configuration and the host back at every shutdown, as if the DaemonSet were deleted each time.",
  ),
  uncaptureOnRemoval: plainEnv(
    "Dataplane",
    "AMBIENT_CNI_UNCAPTURE_ON_REMOVAL",
    bool,
    "false",
    "When the DaemonSet is deleted or does not select this node any more, pods are released too; otherwise they stay captured.",
  ),
};

export const PATHS = {
  hostRoot: plainEnv(
    "Paths",
    "AMBIENT_CNI_HOST_ROOT",
    absolutePath,
    "/host",
    "Where the node's file system is mounted; / when the agent runs on the node itself.",
  ),
  procDir: plainEnv("Paths", "AMBIENT_CNI_PROC_DIR", optional(absolutePath), DERIVED, "The node's proc.", {
    fallbackText: "`proc` below AMBIENT_CNI_HOST_ROOT",
  }),
  ztunnelSocket: flagged(
    "Paths",
    "ztunnel-uds-address",
    socketPath,
    "/var/run/ztunnel/ztunnel.sock",
    "Unix socket on which ztunnel is served.",
  ),
  runDir: flagged(
    "Paths",
    "cni-agent-run-dir",
    absolutePath,
    DEFAULT_RUN_DIR,
    "Directory shared with the plugin: sockets, state, plugin log.",
  ),
  debugSocket: plainEnv(
    "Paths",
    "AMBIENT_CNI_DEBUG_SOCKET",
    optional(socketPath),
    DERIVED,
    "Unix socket on which `ambient-cni` asks the agent; only root may.",
    { fallbackText: "`ambient-cni.sock` in CNI_AGENT_RUN_DIR" },
  ),
};

export const INSTALLER = {
  cniNetDir: flagged(
    "Installer",
    "mounted-cni-net-dir",
    optional(absolutePath),
    DERIVED,
    "The node's directory of CNI configurations.",
    {
      fallbackText: "`etc/cni/net.d` below AMBIENT_CNI_HOST_ROOT",
    },
  ),
  cniBinDir: plainEnv(
    "Installer",
    "AMBIENT_CNI_BIN_DIR",
    optional(absolutePath),
    DERIVED,
    "The node's directory of CNI plugins.",
    {
      fallbackText: "`opt/cni/bin` below AMBIENT_CNI_HOST_ROOT",
    },
  ),
  pluginSourceDir: plainEnv(
    "Installer",
    "AMBIENT_CNI_PLUGIN_SOURCE_DIR",
    absolutePath,
    "/opt/cni/bin",
    "Where the plugin to install lies in the image.",
  ),
  cniConfName: flagged(
    "Installer",
    "cni-conf-name",
    fileName(".conf", ".conflist", ".json"),
    "",
    "The configuration to chain into; it is found under its other extension too. Not chained: the one to write.",
    { fallbackText: "the first valid one, or YYY-istio-cni.conf" },
  ),
  chained: flagged(
    "Installer",
    "chained-cni-plugin",
    bool,
    "true",
    "Chains the plugin into an existing configuration. Off (Multus): writes one of the plugin alone, for pods that ask for the NetworkAttachmentDefinition istio-cni; ambient pods don't, and are captured by the watch.",
  ),
  istioOwnedConfig: flagged(
    "Installer",
    "istio-owned-cni-config",
    bool,
    "false",
    "Writes a copy of the existing configuration, of higher priority, instead of editing it; only with chained and ambient.",
  ),
  istioOwnedConfigName: flagged(
    "Installer",
    "istio-owned-cni-config-filename",
    fileName(".conflist"),
    "",
    "Its name, which must sort before all others. ISTIO_OWNED_CNI_CONF_FILENAME is what the stock chart sets.",
    { aliases: ["ISTIO_OWNED_CNI_CONF_FILENAME"], fallbackText: "`02-istio-cni.conflist`" },
  ),
  cniConfGroupRead: flagged(
    "Installer",
    "cni-conf-group-read",
    bool,
    "false",
    "Configurations that the agent creates get mode 0640 instead of 0600; existing ones keep theirs.",
  ),
  agentAway: plainEnv(
    "Installer",
    "AMBIENT_CNI_AGENT_AWAY",
    oneOf("namespace", "strict"),
    "namespace",
    "What the plugin lets pass while the agent is away: namespace: the agent's own pods, excluded namespaces and namespaces without the mesh; strict: only the first two.",
  ),
};

export const REPAIR = {
  repairEnabled: flagged(
    "Repair",
    "repair-enabled",
    bool,
    "true",
    "Watches for sidecar pods that started without their redirection: before the plugin was installed, or while the agent was away.",
  ),
  repairPods: flagged(
    "Repair",
    "repair-repair-pods",
    bool,
    "false",
    "Writes the redirection of such pods. Of the three kinds of repair the first that is on counts.",
  ),
  repairDeletePods: flagged("Repair", "repair-delete-pods", bool, "false", "Deletes such pods."),
  repairLabelPods: flagged("Repair", "repair-label-pods", bool, "false", "Labels such pods."),
  repairLabelKey: flagged(
    "Repair",
    "repair-broken-pod-label-key",
    labelKey,
    "cni.istio.io/uninitialized",
    "Key of that label.",
  ),
  repairLabelValue: flagged("Repair", "repair-broken-pod-label-value", labelValue, "true", "Value of that label."),
  repairNodeName: flagged(
    "Repair",
    "repair-node-name",
    text,
    "",
    "Only pods of this node, and only if it is the agent's own. The agent's node is this one where NODE_NAME is not set.",
    {
      fallbackText: "that of NODE_NAME",
    },
  ),
  repairSidecarAnnotation: flagged(
    "Repair",
    "repair-sidecar-annotation",
    text,
    "sidecar.istio.io/status",
    "Annotation by which a sidecar pod is known.",
  ),
  repairInitContainerName: flagged(
    "Repair",
    "repair-init-container-name",
    text,
    "istio-validation",
    "Init container that fails in such pods.",
  ),
  repairInitExitCode: flagged(
    "Repair",
    "repair-init-container-exit-code",
    integer(0, 255),
    "126",
    "Exit status with which it fails.",
  ),
  repairInitTerminationMessage: flagged(
    "Repair",
    "repair-init-container-termination-message",
    text,
    "",
    "Termination message with which it fails.",
    { fallbackText: "any" },
  ),
  repairLabelSelectors: flagged("Repair", "repair-label-selectors", labelSelector, "", "Only pods with these labels."),
  repairFieldSelectors: flagged("Repair", "repair-field-selectors", fieldSelector, "", "Only pods with these fields."),
};

export const TELEMETRY = {
  monitoringPort: flagged("Telemetry", "monitoring-port", port, "15014", "Port of /metrics."),
  healthPort: plainEnv("Telemetry", "AMBIENT_CNI_HEALTH_PORT", port, "8000", "Port of /healthz and /readyz."),
  logLevels: flagOnly(
    "Telemetry",
    "log_output_level",
    logLevels,
    "default:info",
    "Log level of all scopes, or of each.",
  ),
  logAsJson: flagOnly("Telemetry", "log_as_json", bool, "false", "Log lines are JSON."),
  logTargets: flagOnly(
    "Telemetry",
    "log_target",
    logTargets,
    "stdout",
    "Where log lines go; may be given several times.",
  ),
  memoryLimit: plainEnv(
    "Telemetry",
    "GOMEMLIMIT",
    goMemory,
    "",
    "Memory limit of the container. The image's launcher caps the JavaScript heap at half of it, 96 MiB at most.",
    { fallbackText: "none" },
  ),
};

const always = "The agent always reconciles pods at its start, and repairs only what differs.";
const noKubeconfig = "The plugin holds no Kubernetes credentials, so no kubeconfig is written.";
const unusedUpstream = "Upstream declares it and reads it nowhere.";
const ctrlz = "There is no ctrlz server; `ambient-cni` reads the agent through its own socket.";

export const ACCEPTED = {
  reconcileOnStartup: envOnly("Accepted", "AMBIENT_RECONCILE_POD_RULES_ON_STARTUP", unread, "", always, accepted),
  detectionRetry: flagged(
    "Accepted",
    "enable-ambient-detection-retry",
    unread,
    "",
    "The agent decides from its cache and always fails closed for pods of the mesh.",
    accepted,
  ),
  scopedLocking: plainEnv(
    "Accepted",
    "AMBIENT_USE_SCOPED_XTABLES_LOCKING",
    unread,
    "",
    "No lock of the host is ever held.",
    accepted,
  ),
  kubeconfigMode: flagged("Accepted", "kubeconfig-mode", unread, "", noKubeconfig, accepted),
  kubeCaFile: flagged("Accepted", "kube-ca-file", unread, "", noKubeconfig, accepted),
  skipTlsVerify: flagged(
    "Accepted",
    "skip-tls-verify",
    unread,
    "",
    `${noKubeconfig} The agent always verifies the API server.`,
    accepted,
  ),
  logLevel: flagged("Accepted", "log-level", unread, "", unusedUpstream, accepted),
  cniNetworkConfig: flagged("Accepted", "cni-network-config", unread, "", unusedUpstream, accepted),
  cniNetworkConfigFile: flagged("Accepted", "cni-network-config-file", unread, "", unusedUpstream, accepted),
  logUdsSocket: envOnly(
    "Accepted",
    "LOG_UDS_SOCKET",
    unread,
    "",
    `${unusedUpstream} The log socket is log.sock in CNI_AGENT_RUN_DIR.`,
    accepted,
  ),
  cniEventAddress: envOnly(
    "Accepted",
    "CNI_EVENT_ADDRESS",
    unread,
    "",
    `${unusedUpstream} The plugin's socket is pluginevent.sock in CNI_AGENT_RUN_DIR.`,
    accepted,
  ),
  revision: plainEnv(
    "Accepted",
    "REVISION",
    unread,
    "",
    "Nothing depends on the revision of the control plane.",
    accepted,
  ),
  kubernetesNodeName: plainEnv(
    "Accepted",
    "KUBERNETES_NODE_NAME",
    unread,
    "",
    "Upstream only logs it; NODE_NAME counts.",
    accepted,
  ),
  gomaxprocs: plainEnv("Accepted", "GOMAXPROCS", unread, "", "The agent is not a Go program.", accepted),
  dryRunFilePath: plainEnv(
    "Accepted",
    "DRY_RUN_FILE_PATH",
    unread,
    "",
    "Upstream's plugin alone reads it, for tests of sidecar rules.",
    accepted,
  ),
  currentAgentVersion: plainEnv(
    "Accepted",
    "CURRENT_AGENT_VERSION",
    unread,
    "",
    "The chart sets it so that a new version restarts the agent; nothing reads it.",
    accepted,
  ),
  repairRunAsDaemon: plainEnv(
    "Accepted",
    "REPAIR_RUN_AS_DAEMON",
    unread,
    "",
    "Repair always runs in the agent.",
    accepted,
  ),
  logCaller: flagOnly("Accepted", "log_caller", unread, "", "Log lines carry no caller.", accepted),
  logStacktraceLevel: flagOnly(
    "Accepted",
    "log_stacktrace_level",
    unread,
    "",
    "Stack traces are written with unexpected errors only.",
    accepted,
  ),
  logRotate: flagOnly("Accepted", "log_rotate", unread, "", "Log files are not rotated by the agent.", accepted),
  logRotateMaxAge: flagOnly(
    "Accepted",
    "log_rotate_max_age",
    unread,
    "",
    "Log files are not rotated by the agent.",
    accepted,
  ),
  logRotateMaxBackups: flagOnly(
    "Accepted",
    "log_rotate_max_backups",
    unread,
    "",
    "Log files are not rotated by the agent.",
    accepted,
  ),
  logRotateMaxSize: flagOnly(
    "Accepted",
    "log_rotate_max_size",
    unread,
    "",
    "Log files are not rotated by the agent.",
    accepted,
  ),
  ctrlzPort: flagOnly("Accepted", "ctrlz_port", unread, "", ctrlz, accepted),
  ctrlzAddress: flagOnly("Accepted", "ctrlz_address", unread, "", ctrlz, accepted),
};

export const TABLE = {
  ...MESH,
  ...IDENTITY,
  ...DATAPLANE,
  ...PATHS,
  ...INSTALLER,
  ...REPAIR,
  ...TELEMETRY,
  ...ACCEPTED,
};

/** Variables read before or beside the configuration: known, so that no warning calls them unknown. */
export const READ_ELSEWHERE: Readonly<Record<string, string>> = {
  AMBIENT_CNI_ADDON: "Path of the native addon, in place of the one beside the program.",
  AMBIENT_CNI_TRACE_FDS: "1: a leaked file descriptor is reported with the stack that opened it.",
  AMBIENT_CNI_VERSION: "Version that the agent reports; set by the build.",
};

export type SettingId = keyof typeof TABLE;

export type Values = { readonly [Id in SettingId]: (typeof TABLE)[Id] extends Setting<infer T> ? T : never };

export const SETTINGS = Object.entries(TABLE) as readonly (readonly [SettingId, Setting<unknown>])[];
