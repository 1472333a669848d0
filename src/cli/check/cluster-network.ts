// SPDX-License-Identifier: Apache-2.0
// CNIs that are known to stop packets whose source is not what they gave out. Pods' own packets always wear the
// pod's address; what may not is kubelet's probes, where those wear the probe address.
import type { CiliumSettings } from "../../sys/cilium.ts";
import { agentSettings, type Check, type CheckContext, type CheckResult, fail, ok, skip, warn } from "./check.ts";
import { probeProof } from "./probes.ts";

const CILIUM = { plugin: "cilium-cni", interface: "cilium_host" } as const;
const SHOWN = 5;
const PROVED = "; the proof is worth more than the setting";

export const CLUSTER_NETWORK_CHECKS: readonly Check[] = [
  {
    code: "AMB-207",
    category: "cni",
    title: "Cilium lets the node's probes through",
    pre: true,
    fix: "helm upgrade cilium --set bpf.masquerade=false --set bpf.hostLegacyRouting=true, or let the eBPF engine capture: its probes wear no other address; where Cilium denies by default, a CiliumClusterwideNetworkPolicy must let in 169.254.7.127/32",
    about:
      "Cilium with bpf.masquerade=true, or with its eBPF host routing (bpf.hostLegacyRouting=false), sends a pod's answers past the node's own network stack. Where probes wear the probe address (the netfilter engines), the stack is where they would get their own back: probes time out. Read from what Cilium's agent has written on the node (/var/run/cilium/state/agent-runtime-config.json), where it is read at all; a probe that is proved to arrive is believed before any setting. Policies of Cilium's own are not looked at.",
    run: async (context) => {
      const { types, interfaces } = await context.facts.clusterNetwork();
      if (!types.includes(CILIUM.plugin) && !interfaces.includes(CILIUM.interface)) return ok("no Cilium on this node");
      return (await proof(context)) ?? ciliumVerdict(await context.facts.cilium());
    },
  },
  {
    code: "AMB-208",
    category: "cni",
    title: "OVN-Kubernetes leads pods' answers through the node",
    pre: true,
    fix: "set spec.defaultNetwork.ovnKubernetesConfig.gatewayConfig.routingViaHost=true in the cluster's Network object (oc edit network.operator cluster), or let the eBPF engine capture: its probes wear no other address",
    about:
      "In its shared gateway mode OVN-Kubernetes sends what leaves a pod past the node's own network stack, also the answer to a probe that wears the probe address: it times out. With routingViaHost=true (local gateway mode) the stack sees it. The mode is read from the arguments of ovnkube on this node; a probe that is proved to arrive is believed before them.",
    run: async (context) => {
      const { ovnGateway } = await context.facts.clusterNetwork();
      if (ovnGateway === undefined) return ok("no OVN-Kubernetes on this node");
      const proved = await proof(context);
      if (proved !== undefined) return proved;
      if (ovnGateway === "local") return ok("local gateway mode (routingViaHost)");
      return ovnGateway === "shared"
        ? warn("shared gateway mode")
        : skip("ovnkube runs, and does not say its gateway mode");
    },
  },
  {
    code: "AMB-209",
    category: "cni",
    title: "security groups for pods of AWS let the node's probes through",
    pre: true,
    fix: "AMBIENT_ENABLE_AWS_BRANCH_ENI_PROBE=true and DISABLE_TCP_EARLY_DEMUX=true of aws-node's init container, or POD_SECURITY_GROUP_ENFORCING_MODE=standard",
    about:
      "A pod with security groups of its own (a branch ENI) has a routing table of its own on the node; in strict mode everything that concerns it goes out to the VPC, a probe's answer too. The agent adds two rules for each such pod that keep probes on the node, where AMBIENT_ENABLE_AWS_BRANCH_ENI_PROBE is true and TCP early demux is off, as AWS has it for the same reason. The mode is read from the configuration of AWS's plugin, the rules of captured pods from the node. What the security groups themselves let in is AWS's to say: between pods of the mesh it must be TCP 15008.",
    run: async (context) => {
      const { podSecurityGroups, earlyDemux } = await context.facts.clusterNetwork();
      if (podSecurityGroups === undefined) return ok("not the CNI of AWS");
      if (podSecurityGroups === "standard") return ok("enforcing mode standard");
      const mode = `enforcing mode ${podSecurityGroups}`;
      // Without branch ENIs there is no other sign of them, and early demux may be on with good reason.
      if (earlyDemux) return warn(`${mode}, and net.ipv4.tcp_early_demux is on: no rules are added`);
      const branches = await context.facts.branchAddresses();
      const bare = branches.filter(({ ruled }) => !ruled).map(({ pod, ip }) => `${pod} (${ip})`);
      if (bare.length > 0) return warn(`${mode}, and no rules for probes of ${bare.slice(0, SHOWN).join(", ")}`);
      if (branches.length > 0) return ok(`${mode}, and rules for probes of ${branches.map(({ ip }) => ip).join(", ")}`);
      const settings = await agentSettings(context);
      if (settings === undefined) return skip(`${mode}; whether rules are to be added, only the agent knows`);
      const enabled = settings.find((one) => one.setting === "AMBIENT_ENABLE_AWS_BRANCH_ENI_PROBE")?.value;
      if (enabled === "false") return warn(`${mode}, and no rules for probes are to be added`);
      return ok(`${mode}, and no captured pod is on a branch ENI`);
    },
  },
];

/** undefined: nothing is captured by which it could be proved. */
async function proof(context: CheckContext): Promise<CheckResult | undefined> {
  const found = await probeProof(context);
  if (found === undefined || found.verdict === "skip") return undefined;
  return found.verdict === "ok" ? ok(`${found.evidence}${PROVED}`) : fail(found.evidence);
}

function ciliumVerdict(settings: CiliumSettings | undefined): CheckResult {
  if (settings?.bpfMasquerade === undefined) {
    return skip("Cilium's agent has not written down its settings on this node, and no captured pod shows it");
  }
  const { bpfMasquerade, masquerade, legacyRouting } = settings;
  // Cilium itself falls back to the node's stack while iptables masquerades.
  const hostRouting = legacyRouting === false && (bpfMasquerade || masquerade === false);
  if (bpfMasquerade) return warn(`bpf.masquerade=true${hostRouting ? ", bpf.hostLegacyRouting=false" : ""}`);
  return hostRouting
    ? warn("bpf.hostLegacyRouting=false without masquerading")
    : ok("masquerading by iptables, or none");
}
