// SPDX-License-Identifier: Apache-2.0
import { release } from "node:os";
import { basename, join } from "node:path";
import { Installer } from "../../install/installer.ts";
import { Keeper } from "../../install/keeper.ts";
import { pluginEntry } from "../../install/plugin-entry.ts";
import { Agent } from "../agent/agent.ts";
import { nameserversFrom } from "../agent/nameservers.ts";
import type { ProcessFacts } from "../agent/report.ts";
import { SuccessionQuestion } from "../agent/succession.ts";
import { NetnsHandover } from "../cniserver/handover.ts";
import { LogServer } from "../cniserver/log-server.ts";
import { removeState, stateWrittenAt, writeState } from "../cniserver/published-state.ts";
import { CniServer } from "../cniserver/server.ts";
import { systemClock } from "../core/clock.ts";
import type { Config } from "../core/config/config.ts";
import { PLUGIN_NAME } from "../core/constants.ts";
import type { Succession, Successor } from "../core/daemonset.ts";
import { AgentError, messageOf } from "../core/errors.ts";
import type { NetnsFinder } from "../core/ports/netns.ts";
import type { Logger } from "../core/ports/telemetry.ts";
import type { SettingReport } from "../core/report/settings.ts";
import type { ComponentReport } from "../core/report/status.ts";
import { nodePath } from "../core/report/words.ts";
import { NodeDataplane } from "../dataplane/dataplane.ts";
import { EbpfEngine } from "../dataplane/ebpf/engine.ts";
import { ebpfHost } from "../dataplane/ebpf/host.ts";
import { KNOBS } from "../dataplane/ebpf/node.ts";
import { netfilterEngines } from "../dataplane/engines.ts";
import { PodExistingConnections } from "../dataplane/existing.ts";
import { NodeProbeExemption } from "../dataplane/probe-exemption/exemption.ts";
import { Kubelet } from "../dataplane/probe-exemption/kubelet.ts";
import { SnatExemption } from "../dataplane/probe-exemption/snat.ts";
import { PodProver } from "../dataplane/proof/prover.ts";
import { PodTracer } from "../dataplane/proof/tracer.ts";
import { SidecarRedirector } from "../dataplane/sidecar/redirector.ts";
import { UpstreamHost } from "../dataplane/upstream/host.ts";
import { KubeCluster } from "../kube/cluster.ts";
import { native } from "../native/load.ts";
import { ProcNetnsFinder } from "../netns/finder.ts";
import { HandedNetnsFinder } from "../netns/handed.ts";
import { ManualClaimsFile } from "../netns/manual-claims.ts";
import { sampleRedirection } from "../sidecar/sample.ts";
import { bootId } from "../sys/boot.ts";
import { nameserversOf } from "../sys/resolv-conf.ts";
import { Admin } from "../telemetry/admin.ts";
import { DebugServer } from "../telemetry/debug-server.ts";
import { DriftLedger } from "../telemetry/drift-ledger.ts";
import { DecisionJournal } from "../telemetry/journal.ts";
import type { Log } from "../telemetry/log.ts";
import { PromMetrics } from "../telemetry/metrics.ts";
import { ZdsServer } from "../zds/server.ts";
import { debugRoutes } from "./debug-routes.ts";
import { forgetEngines, keepEngines } from "./last-engines.ts";

/** Older charts give 5 s before SIGKILL; the newer ones 30. */
const SHORTEST_GRACE_SECONDS = 5;
/** For the last log lines and the end of the process, in ms. */
const SPARE_MS = 500;
/** An agent that leaves everything in place is gone after this at the latest, in ms. */
const STAY_MS = 4500;
const CHAIN_MS = 500;
const AFTER_FAILURE: Succession = { successor: "same", reason: "the agent has ended by itself" };
const FAREWELL: Readonly<Record<Successor, string>> = {
  same: "stopping; pods stay captured and the plugin in its chain",
  none: "stopping for good: the CNI configuration and what is ours on the host are given back",
  other: "stopping: pods are handed over to istio-cni",
};

function after(ms: number): Promise<void> {
  return new Promise((resolve) => systemClock.after(ms, resolve));
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

/** The agent with everything it needs, wired once: the only place that knows all parts. */
export class AgentProcess {
  private readonly agent: Agent;
  private readonly admin: Admin;
  private readonly handover: NetnsHandover;
  private readonly cniServer: CniServer;
  private readonly logServer: LogServer;
  private readonly keeper: Keeper;
  private readonly debugServer: DebugServer;
  private readonly decisions: DecisionJournal;
  private readonly startedAt = performance.now();
  private readonly question: SuccessionQuestion;
  private readonly logger: Logger;
  private answering = false;

  private constructor(
    private readonly config: Config,
    private readonly log: Log,
    private readonly version: string,
    settings: readonly SettingReport[],
    private readonly boot: string,
    lastAliveAt: number | undefined,
  ) {
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
    this.logger = logger;
    const cluster = new KubeCluster({
      nodeName: config.nodeName,
      kubeconfig: config.kubeconfig,
      environment: process.env,
      marks: config.repair.sidecarAnnotation === "" ? [] : [config.repair.sidecarAnnotation],
      logger: log.scope("kube"),
      metrics,
    });
    this.question = new SuccessionQuestion({ cluster, config, clock, logger });
    this.decisions = new DecisionJournal(logger);
    const drift = new DriftLedger(metrics);
    this.agent = new Agent({
      config,
      cluster,
      finder,
      ztunnel: new ZdsServer({ path: config.ztunnelSocket, binding, logger: log.scope("zds"), metrics }),
      dataplane: new NodeDataplane({
        binding,
        config,
        host,
        logger: log.scope("dataplane"),
        metrics,
        engines: [ebpf, ...netfilterEngines(binding, log.scope("dataplane"), config.forceIptablesBinary)],
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
      decisions: this.decisions,
      drift,
      logger,
      metrics,
      clock,
    });
    metrics.onScrape(() => this.agent.measure());
    this.handover = new NetnsHandover({ runDir: config.runDir, binding, logger });
    this.cniServer = new CniServer({
      runDir: config.runDir,
      handover: this.handover,
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
      drift,
    });
    const probesFromHost = config.probeSources === "host";
    const prover = new PodProver({ binding, host, probesFromHost });
    const inspection = this.agent.inspection(prover);
    const monitor = this.agent.monitor(ebpf.flows);
    this.debugServer = new DebugServer({
      path: config.debugSocket,
      routes: debugRoutes({
        report: this.agent.report,
        log,
        metrics: () => metrics.text(),
        facts: () => this.facts(),
        inspection,
        missing: () => this.missing(),
        agent: this.agent,
        monitor,
        tracing: this.agent.tracing(inspection, monitor, new PodTracer(binding)),
        settings,
        bpf: binding.bpfVersions(KNOBS),
      }),
      logger: log.scope("debug"),
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

  /**
   * `settings`: what `config` was made of, for people.
   * @throws AgentError when something of the node that cannot be done without is missing
   */
  static async create(
    config: Config,
    log: Log,
    version: string,
    settings: readonly SettingReport[],
  ): Promise<AgentProcess> {
    const boot = bootId();
    return new AgentProcess(config, log, version, settings, boot, await stateWrittenAt(config.runDir, boot));
  }

  /** Health first, so that kubelet sees a living process; the plugin last, when it can be answered. */
  async start(): Promise<void> {
    await this.admin.start();
    // Before the agent is ready: it is asked most when it does not get ready.
    await this.debugServer.listen().catch((error: unknown) => {
      this.log.scope("debug").error("no debug socket; pods are captured all the same", { error: messageOf(error) });
    });
    await this.agent.start();
    const { runDir } = this.config;
    void keepEngines(runDir, { bootId: this.boot, version: this.version }, this.agent.report.engines()).catch(
      (error: unknown) =>
        this.logger.warn("self-tests are not kept for `ambient-cni engines`", { error: messageOf(error) }),
    );
    void this.question.prepare();
    await this.logServer.listen();
    this.handover.listen();
    await this.cniServer.listen();
    this.answering = true;
    this.keeper.start();
  }

  /**
   * Ends within kubelet's grace period. After a signal the API is asked who comes next: while it is asked, and
   * for an upgrade also afterwards, everything stays as it is. Else the agent has broken, and will be restarted.
   */
  async stop(signalled: boolean): Promise<void> {
    const clock = systemClock;
    const began = clock.now();
    const { successor, reason } = signalled ? await this.question.ask() : AFTER_FAILURE;
    const graceMs = (this.question.graceSeconds ?? SHORTEST_GRACE_SECONDS) * 1000;
    const until = began + (successor === "same" ? STAY_MS : Math.max(graceMs - SPARE_MS, STAY_MS));
    this.logger.info(FAREWELL[successor], { reason });
    const ended = successor === "same" ? this.stay() : this.depart(successor, until);
    await Promise.race([ended, after(until - clock.now())]);
  }

  private async stay(): Promise<void> {
    this.answering = false;
    await this.keeper.stop();
    await this.cniServer.stop();
    this.handover.stop();
    await this.agent.stop();
    await this.logServer.stop();
    await this.debugServer.stop();
    await this.admin.stop();
  }

  /**
   * The chain first: a plugin that is called for a new pod must find the agent as long as it is in there. But a
   * busy disk may take seconds for it, which the pods don't have.
   */
  private async depart(successor: Exclude<Successor, "same">, until: number): Promise<void> {
    const removed = successor === "none";
    const unchained = removed ? this.unchain() : this.keeper.stop();
    await Promise.race([unchained, after(CHAIN_MS)]);
    this.answering = false;
    await this.cniServer.stop();
    this.handover.stop();
    await this.agent.depart(successor, until);
    if (removed) {
      await removeState(this.config.runDir);
      await forgetEngines(this.config.runDir);
    }
    await this.logServer.stop();
    await this.debugServer.stop();
    await unchained;
    await this.admin.stop();
  }

  private async unchain(): Promise<void> {
    try {
      await this.keeper.remove();
    } catch (error) {
      this.logger.error("the CNI configuration could not be given back", { error: messageOf(error) });
    }
  }

  private facts(): ProcessFacts {
    const upSeconds = Math.round((performance.now() - this.startedAt) / 1000);
    return { version: this.version, kernel: release(), upSeconds, plugin: this.plugin() };
  }

  private plugin(): Omit<ComponentReport, "name"> {
    const problem = this.keeper.missing();
    if (problem !== undefined) return { verdict: "error", text: problem.replace(/^CNI plugin: /, "") };
    const path = nodePath(join(this.config.cniBinDir, PLUGIN_NAME), this.config.hostRoot);
    const conf = basename(this.keeper.confPath ?? "");
    if (this.config.chained) return { verdict: "ok", text: `${path}, chained in ${conf}` };
    return { verdict: "ok", text: `${path}, alone in ${conf}: ambient pods are captured by the watch` };
  }

  private missing(): readonly string[] {
    const missing = [...this.agent.missing()];
    if (!this.answering) missing.push("plugin socket: not listening yet");
    const uninstalled = this.keeper.missing();
    if (uninstalled !== undefined) missing.push(uninstalled);
    return missing;
  }
}
