// SPDX-License-Identifier: Apache-2.0
// The only owner of numbers, addresses and names that several parts share. Anything that ztunnel,
// istiod or upstream's istio-cni also knows keeps their value: changing one breaks the swap.

/** Ports that ztunnel listens on inside a pod's netns. */
export const ZTUNNEL_PORT = {
  outbound: 15001,
  inboundPlaintext: 15006,
  inboundHbone: 15008,
  dns: 15053,
} as const;

/** Ports of a sidecar: Envoy's listeners, and pilot-agent's DNS server. */
export const SIDECAR_PORT = { outbound: 15001, inbound: 15006, tunnel: 15008, dns: 15053 } as const;
/**
 * Marks in TPROXY mode: of what the transparent listener shall get, and of Envoy's own connections that are
 * to be intercepted on lo. Policy routing: `fwmark 1337 lookup 133`.
 */
export const SIDECAR_MARK = { inbound: 1337, outbound: 1338 } as const;
export const SIDECAR_ROUTE_TABLE = 133;
export const SIDECAR_RULE_PRIORITY = 32765;
/** nftables table of a sidecar pod. */
export const SIDECAR_TABLE = "ambient-cni-sidecar";

/** Mark on every packet ztunnel sends; ztunnel sets the whole value, rules compare under MARK_MASK. */
export const ZTUNNEL_MARK = 0x539;
/** Our mark: "deliver locally", it selects ROUTE_TABLE through the policy rule. */
export const LOCAL_MARK = 0x111;
export const MARK_MASK = 0xfff;

/** Policy routing in the pod: `fwmark 0x111/0xfff lookup 100`, table 100 = `local default dev lo`. */
export const ROUTE_TABLE = 100;
export const RULE_PRIORITY = 32764;

/** Source address that host probes wear after SNAT (HOST_PROBE_SNAT_IP, HOST_PROBE_SNAT_IPV6). */
export const PROBE_SNAT_IPV4 = "169.254.7.127";
export const PROBE_SNAT_IPV6 = "fd16:9254:7127:1337:ffff:ffff:ffff:ffff";

/** Kubernetes API of ambient mode: labels and annotations, upstream's spelling. */
export const DATAPLANE_MODE_LABEL = "istio.io/dataplane-mode";
export const REDIRECTION_ANNOTATION = "ambient.istio.io/redirection";
export const DNS_CAPTURE_ANNOTATION = "ambient.istio.io/dns-capture";
export const BYPASS_INBOUND_ANNOTATION = "ambient.istio.io/bypass-inbound-capture";
export const REROUTE_INTERFACES_ANNOTATION = "istio.io/reroute-virtual-interfaces";
export const SIDECAR_STATUS_ANNOTATION = "sidecar.istio.io/status";
/** Both a label and an annotation; the label wins. */
export const SIDECAR_INJECT = "sidecar.istio.io/inject";
/** What a pod's author, or the injector, says about the redirection into its sidecar. */
export const SIDECAR_ANNOTATION = {
  mode: "sidecar.istio.io/interceptionMode",
  includeOutboundIpRanges: "traffic.sidecar.istio.io/includeOutboundIPRanges",
  excludeOutboundIpRanges: "traffic.sidecar.istio.io/excludeOutboundIPRanges",
  includeInboundPorts: "traffic.sidecar.istio.io/includeInboundPorts",
  excludeInboundPorts: "traffic.sidecar.istio.io/excludeInboundPorts",
  includeOutboundPorts: "traffic.sidecar.istio.io/includeOutboundPorts",
  excludeOutboundPorts: "traffic.sidecar.istio.io/excludeOutboundPorts",
  excludeInterfaces: "traffic.sidecar.istio.io/excludeInterfaces",
  /** Superseded by REROUTE_INTERFACES_ANNOTATION, which wins where both are. */
  kubevirtInterfaces: "traffic.sidecar.istio.io/kubevirtInterfaces",
} as const;
/** Containers that the injector adds, by their names. */
export const SIDECAR_CONTAINER = { proxy: "istio-proxy", init: "istio-init" } as const;
/** Variables of the container istio-proxy that decide about the redirection. */
export const SIDECAR_ENV = {
  disabled: "DISABLE_ENVOY",
  dnsCapture: "ISTIO_META_DNS_CAPTURE",
  dualStack: "ISTIO_DUAL_STACK",
  dropInvalid: "INVALID_DROP",
} as const;
/** Ours: outbound CIDRs left alone, heeded only where the node allows it. */
export const EXCLUDE_OUTBOUND_ANNOTATION = "ambient-cni.io/exclude-outbound-cidrs";
/** Ours: engine for one pod, heeded only where the node allows it. */
export const ENGINE_ANNOTATION = "ambient-cni.io/engine";
/** A static (mirror) pod's cgroup carries this hash, not the API's UID. */
export const CONFIG_HASH_ANNOTATION = "kubernetes.io/config.hash";

/**
 * All that the agent's container may do: what upstream's chart gives it, and ours, and no more. CAP_SYS_ADMIN
 * stands for CAP_BPF and CAP_PERFMON too. install/chart/templates/daemonset.yaml says what each is for.
 */
export const AGENT_CAPABILITIES = ["NET_ADMIN", "NET_RAW", "SYS_PTRACE", "SYS_ADMIN", "DAC_OVERRIDE"] as const;

/** The agent's DaemonSet, by upstream's name; the plugin knows pods of it by that prefix (cni/verdict.c). */
export const AGENT_DAEMONSET = "istio-cni-node";

/** Name of the CNI plugin, of its binary and of its `type` in a configuration. */
export const PLUGIN_NAME = "istio-cni";

export const DEFAULT_RUN_DIR = "/var/run/istio-cni";
/** Files inside CNI_AGENT_RUN_DIR. */
export const RUN_FILE = {
  pluginSocket: "pluginevent.sock",
  logSocket: "log.sock",
  /** Where the plugin hands over what the agent can't reach by its path. */
  netnsSocket: "netns.sock",
  /** What the plugin may rely on while the agent is away. */
  state: "ambient-cni-state.json",
  /** Results of the agent's self-tests. */
  engines: "ambient-cni-engines.json",
  /** Network namespaces that were captured by hand. */
  manual: "ambient-cni-manual.json",
  pluginLog: "istio-cni.log",
  /** What the command line asks. */
  debugSocket: "ambient-cni.sock",
  /** Upstream's, with a token of the service account in it; our plugin needs none. */
  kubeconfig: "istio-cni-kubeconfig",
} as const;
/** Of the sockets that the plugin writes to, as upstream: their directory keeps others out. */
export const PLUGIN_SOCKET_MODE = 0o666;

/** ZDS: ztunnel reads at most this many bytes of a message; longer ones cut the connection. */
export const ZDS_MAX_MESSAGE = 1024;
/** Deadline for one ZDS ack, as upstream. */
export const ZDS_ACK_TIMEOUT_MS = 5000;

/** nftables objects of ours: one table in each pod, one on the host. */
export const POD_TABLE = "ambient-cni";
export const HOST_TABLE = "ambient-cni-probes";

/**
 * Addresses of the eBPF engine, local to a pod's netns and on no wire. 240.0.0.0/4 is reserved and never
 * routed (RFC 1112); the IPv6 ones are unique local addresses (RFC 4193) below the probe address' prefix.
 * A pod has one shadow per family: what ztunnel's inbound sockets are bound to. Outbound connections go
 * to a spread address, one out of many, chosen by their destination.
 */
export const SHADOW_RANGE = { 4: "255.0.0.0/9", 6: "fd16:9254:7127:1::/64" } as const;
export const SPREAD_RANGE = { 4: "255.128.0.0/16", 6: "fd16:9254:7127:2::/112" } as const;
/**
 * Marks of our own verification connections inside a pod. They match LOCAL_MARK/MARK_MASK, so the policy
 * rule leads them to lo whatever the pod's routes are, and only the full value meets what is verified. One
 * for each kind of engine: while one takes over from another, both are in the netns.
 */
export const VERIFY_MARK = { netfilter: 0xac111, ebpf: 0xad111 } as const;
