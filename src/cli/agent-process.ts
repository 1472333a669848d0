// SPDX-License-Identifier: Apache-2.0
import { join } from "node:path";
import { Installer } from "../../install/installer.ts";
import { Keeper } from "../../install/keeper.ts";
import { pluginEntry } from "../../install/plugin-entry.ts";
import { Agent } from "../agent/agent.ts";
import { nameserversFrom } from "../agent/nameservers.ts";
import { LogServer } from "../cniserver/log-server.ts";
import { stateWrittenAt, writeState } from "../cniserver/published-state.ts";
import { CniServer } from "../cniserver/server.ts";
import { systemClock } from "../core/clock.ts";
import type { Config } from "../core/config/config.ts";
import { NodeDataplane } from "../dataplane/dataplane.ts";
import { EbpfEngine } from "../dataplane/ebpf/engine.ts";
import { ebpfHost } from "../dataplane/ebpf/host.ts";
import { netfilterEngines } from "../dataplane/engines.ts";
import { PodExistingConnections } from "../dataplane/existing.ts";
import { NodeProbeExemption } from "../dataplane/probe-exemption/exemption.ts";
import { Kubelet } from "../dataplane/probe-exemption/kubelet.ts";
import { SnatExemption } from "../dataplane/probe-exemption/snat.ts";
import { KubeCluster } from "../kube/cluster.ts";
import { native } from "../native/load.ts";
import { ProcNetnsFinder } from "../netns/finder.ts";
import { bootId } from "../sys/boot.ts";
import { nameserversOf } from "../sys/resolv-conf.ts";
import { Admin } from "../telemetry/admin.ts";
import type { Log } from "../telemetry/log.ts";
import { PromMetrics } from "../telemetry/metrics.ts";
import { ZdsServer } from "../zds/server.ts";

/** The agent with everything it needs, wired once: the only place that knows all parts. */
export class AgentProcess {
  private readonly agent: Agent;
  private readonly admin: Admin;
  private readonly cniServer: CniServer;
  private readonly logServer: LogServer;
  private readonly keeper: Keeper;
  private readonly chained: boolean;
  private answering = false;

  private constructor(
    config: Config,
    private readonly log: Log,
    version: string,
    boot: string,
    lastAliveAt: number | undefined,
  ) {
    const logger = log.scope("cni-agent");
    const metrics = new PromMetrics(version);
    const clock = systemClock;
    const binding = native();
    const finder = new ProcNetnsFinder(config, log.scope("netns"));
    const host = finder.host();
    const ebpf = new EbpfEngine({ binding, logger: log.scope("dataplane"), ...ebpfHost(config.procDir) });
    const kubelet = new Kubelet(config.procDir);
    this.chained = config.chained;
    this.agent = new Agent({
      config,
      cluster: new KubeCluster({
        nodeName: config.nodeName,
        kubeconfig: config.kubeconfig,
        environment: process.env,
        logger: log.scope("kube"),
        metrics,
      }),
      finder,
      ztunnel: new ZdsServer({ path: config.ztunnelSocket, binding, logger: log.scope("zds"), metrics }),
      dataplane: new NodeDataplane({
        binding,
        config,
        logger: log.scope("dataplane"),
        metrics,
        engines: [ebpf, ...netfilterEngines(binding, log.scope("dataplane"), config.forceIptablesBinary)],
      }),
      probes: new NodeProbeExemption({
        worn: new SnatExemption({ binding, config, host, logger: log.scope("probes"), metrics }),
        announced: () => ebpf.probers({ host, config, kubelet: () => kubelet.pid() }),
        kubeletOnly: config.probeSources === "kubelet",
        logger: log.scope("probes"),
      }),
      existing: new PodExistingConnections(binding, host),
      nameservers: nameserversFrom({
        cluster: nameserversOf("/etc/resolv.conf"),
        node: nameserversOf(join(config.procDir, "1/root/etc/resolv.conf")),
      }),
      publish: (clear) => writeState(config.runDir, boot, clear),
      lastAliveAt,
      logger,
      metrics,
      clock,
    });
    this.cniServer = new CniServer({
      runDir: config.runDir,
      handler: this.agent.admission,
      logger: log.scope("cni-server"),
      metrics,
    });
    this.logServer = new LogServer(config.runDir, logger);
    this.keeper = new Keeper({
      installer: new Installer(config, pluginEntry(config), logger, metrics),
      clock,
      logger,
      metrics,
    });
    this.admin = new Admin({
      monitoringPort: config.monitoringPort,
      healthPort: config.healthPort,
      metrics,
      missing: () => this.missing(),
      clock,
      logger: log.scope("admin"),
    });
  }

  /** @throws AgentError when something of the node that cannot be done without is missing. */
  static async create(config: Config, log: Log, version: string): Promise<AgentProcess> {
    const boot = bootId();
    return new AgentProcess(config, log, version, boot, await stateWrittenAt(config.runDir, boot));
  }

  /** Health first, so that kubelet sees a living process; the plugin last, when it can be answered. */
  async start(): Promise<void> {
    await this.admin.start();
    await this.agent.start();
    await this.logServer.listen();
    await this.cniServer.listen();
    this.answering = true;
    if (this.chained) this.keeper.start();
    else
      this.log
        .scope("cni-install")
        .info("not chained: no CNI configuration is written; pods are captured by the watch");
  }

  /** Leaves pods captured and the plugin in place: removal from the node is not ours to guess. */
  async stop(): Promise<void> {
    this.answering = false;
    await this.keeper.stop();
    await this.cniServer.stop();
    await this.agent.stop();
    await this.logServer.stop();
    await this.admin.stop();
  }

  private missing(): readonly string[] {
    const missing = [...this.agent.missing()];
    if (!this.answering) missing.push("plugin socket: not listening yet");
    const uninstalled = this.chained ? this.keeper.missing() : undefined;
    if (uninstalled !== undefined) missing.push(uninstalled);
    return missing;
  }
}
