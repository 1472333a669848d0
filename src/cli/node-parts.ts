// SPDX-License-Identifier: Apache-2.0
// What the agent works with on a node, made once: the only place that knows all parts of the floor below.
import { join } from "node:path";
import { nameserversFrom } from "../agent/nameservers.ts";
import type { Parts } from "../agent/parts.ts";
import { writeState } from "../cniserver/published-state.ts";
import { systemClock } from "../core/clock.ts";
import type { Config } from "../core/config/config.ts";
import { AgentError } from "../core/errors.ts";
import type { NetnsFinder, NetnsHandle } from "../core/ports/netns.ts";
import type { Logger } from "../core/ports/telemetry.ts";
import { NodeDataplane } from "../dataplane/dataplane.ts";
import { EbpfEngine } from "../dataplane/ebpf/engine.ts";
import { ebpfHost } from "../dataplane/ebpf/host.ts";
import { netfilterEngines } from "../dataplane/engines.ts";
import { PodExistingConnections } from "../dataplane/existing.ts";
import { NodeProbeExemption } from "../dataplane/probe-exemption/exemption.ts";
import { Kubelet } from "../dataplane/probe-exemption/kubelet.ts";
import { SnatExemption } from "../dataplane/probe-exemption/snat.ts";
import { SidecarRedirector } from "../dataplane/sidecar/redirector.ts";
import { UpstreamHost } from "../dataplane/upstream/host.ts";
import { KubeCluster } from "../kube/cluster.ts";
import type { NativeBinding } from "../native/binding.ts";
import { native } from "../native/load.ts";
import { ProcNetnsFinder } from "../netns/finder.ts";
import { HandedNetnsFinder } from "../netns/handed.ts";
import { ManualClaimsFile } from "../netns/manual-claims.ts";
import { sampleRedirection } from "../sidecar/sample.ts";
import { nameserversOf } from "../sys/resolv-conf.ts";
import { DriftLedger } from "../telemetry/drift-ledger.ts";
import { DecisionJournal } from "../telemetry/journal.ts";
import type { Log } from "../telemetry/log.ts";
import { PromMetrics } from "../telemetry/metrics.ts";
import { PeerProcesses } from "../zds/processes.ts";
import { ZdsServer } from "../zds/server.ts";

/** The agent's parts, and what others of the process share with them. */
export interface NodeParts {
  readonly parts: Parts;
  readonly binding: NativeBinding;
  /** The node's netns. */
  readonly host: NetnsHandle;
  readonly ebpf: EbpfEngine;
  readonly metrics: PromMetrics;
}

/** @throws AgentError when something of the node that cannot be done without is missing */
export function nodeParts(
  config: Config,
  log: Log,
  version: string,
  boot: string,
  lastAliveAt: number | undefined,
): NodeParts {
  const logger = log.scope("cni-agent");
  const metrics = new PromMetrics(version);
  const clock = systemClock;
  const binding = native();
  const finder = netnsFinder(config, log.scope("netns"));
  const host = finder.host();
  const dataplane = log.scope("dataplane");
  const ebpf = new EbpfEngine({
    binding,
    logger: dataplane,
    ...ebpfHost({ binding, procDir: config.procDir, logger: dataplane }),
  });
  const kubelet = new Kubelet(config.procDir);
  const cluster = new KubeCluster({
    nodeName: config.nodeName,
    kubeconfig: config.kubeconfig,
    environment: process.env,
    marks: config.repair.sidecarAnnotation === "" ? [] : [config.repair.sidecarAnnotation],
    logger: log.scope("kube"),
    metrics,
  });
  const drift = new DriftLedger(metrics);
  const parts: Parts = {
    config,
    cluster,
    finder,
    ztunnel: new ZdsServer({ path: config.ztunnelSocket, binding, logger: log.scope("zds"), metrics }),
    ztunnelProcesses: new PeerProcesses(config.procDir),
    dataplane: new NodeDataplane({
      binding,
      config,
      host,
      logger: dataplane,
      metrics,
      engines: [ebpf, ...netfilterEngines(binding, dataplane, config.forceIptablesBinary)],
    }),
    probes: new NodeProbeExemption({
      worn: new SnatExemption({ binding, config, host, logger: log.scope("probes"), drift }),
      announced: () => ebpf.probers({ host, config, kubelet: () => kubelet.pid() }),
      upstream: new UpstreamHost(binding, host, log.scope("probes")),
      kubeletOnly: config.probeSources === "kubelet",
      drift,
      logger: log.scope("probes"),
    }),
    sidecars: new SidecarRedirector({
      binding,
      host,
      logger: dataplane,
      engine: config.engine,
      variant: config.forceIptablesBinary,
      sample: sampleRedirection,
    }),
    existing: new PodExistingConnections(binding, host),
    nameservers: nameserversFrom({
      cluster: nameserversOf("/etc/resolv.conf"),
      node: nameserversOf(join(config.procDir, "1/root/etc/resolv.conf")),
    }),
    publish: (clear) => writeState(config.runDir, boot, clear),
    lastAliveAt,
    claims: new ManualClaimsFile(config.runDir, boot),
    decisions: new DecisionJournal(logger),
    drift,
    logger,
    metrics,
    clock,
  };
  return { parts, binding, host, ebpf, metrics };
}

/** @throws AgentError when ambient can't do without the node's /proc */
function netnsFinder(config: Config, logger: Logger): NetnsFinder {
  try {
    return new ProcNetnsFinder(config, logger);
  } catch (error) {
    if (config.ambientEnabled || !(error instanceof AgentError)) throw error;
    logger.info("running pods can't be looked into; new ones are, as the plugin hands them over", {
      reason: error.message,
    });
    return new HandedNetnsFinder(error);
  }
}
