// SPDX-License-Identifier: Apache-2.0
import { release } from "node:os";
import { basename, join } from "node:path";
import { Installer } from "../../install/installer.ts";
import { Keeper } from "../../install/keeper.ts";
import { pluginEntry } from "../../install/plugin-entry.ts";
import { Agent } from "../agent/agent.ts";
import type { ProcessFacts } from "../agent/report.ts";
import { SuccessionQuestion } from "../agent/succession.ts";
import { NetnsHandover } from "../cniserver/handover.ts";
import { LogServer } from "../cniserver/log-server.ts";
import { removeState, stateWrittenAt } from "../cniserver/published-state.ts";
import { CniServer } from "../cniserver/server.ts";
import { systemClock } from "../core/clock.ts";
import type { Config } from "../core/config/config.ts";
import { PLUGIN_NAME } from "../core/constants.ts";
import type { Succession, Successor } from "../core/daemonset.ts";
import { messageOf } from "../core/errors.ts";
import type { Logger } from "../core/ports/telemetry.ts";
import type { SettingReport, SettingsReport } from "../core/report/settings.ts";
import type { ComponentReport } from "../core/report/status.ts";
import { nodePath } from "../core/report/words.ts";
import { KNOBS } from "../dataplane/ebpf/node.ts";
import { PodProver } from "../dataplane/proof/prover.ts";
import { PodTracer } from "../dataplane/proof/tracer.ts";
import { bootId } from "../sys/boot.ts";
import { placeOnNode } from "../sys/place-on-node.ts";
import { Admin } from "../telemetry/admin.ts";
import { DebugServer } from "../telemetry/debug-server.ts";
import type { Log } from "../telemetry/log.ts";
import { debugRoutes } from "./debug-routes.ts";
import { forgetEngines, keepEngines } from "./last-engines.ts";
import { nodeParts } from "./node-parts.ts";

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

/** The agent with all that lets others reach it: how it starts, and how it ends. */
export class AgentProcess {
  private readonly agent: Agent;
  private readonly admin: Admin;
  private readonly handover: NetnsHandover;
  private readonly cniServer: CniServer;
  private readonly logServer: LogServer;
  private readonly keeper: Keeper;
  private readonly debugServer: DebugServer;
  private readonly startedAt = performance.now();
  private readonly question: SuccessionQuestion;
  private readonly logger: Logger;
  private answering = false;
  private stopping = false;

  private constructor(
    private readonly config: Config,
    private readonly log: Log,
    private readonly version: string,
    settings: readonly SettingReport[],
    private readonly boot: string,
    lastAliveAt: number | undefined,
  ) {
    const node = nodeParts(config, log, version, boot, lastAliveAt);
    const { binding, host, ebpf, metrics } = node;
    const { clock, drift } = node.parts;
    const logger = log.scope("cni-agent");
    this.logger = logger;
    this.question = new SuccessionQuestion({ cluster: node.parts.cluster, config, clock, logger });
    this.agent = new Agent(node.parts);
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
        places: () => placesOf(config),
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
    if (this.stopping) return;
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
    this.stopping = true;
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
      // What stays there is `ambient-cni remove`'s, and no reason to leave out what is still to be done.
      for (const forget of [removeState, forgetEngines]) {
        await forget(this.config.runDir).catch((error: unknown) => {
          this.logger.error("a file of the agent's is left", { error: messageOf(error) });
        });
      }
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

function placesOf({ procDir, cniNetDir, cniBinDir, runDir }: Config): NonNullable<SettingsReport["onNode"]> {
  const place = (path: string) => placeOnNode(procDir, path) ?? null;
  return { cniNetDir: place(cniNetDir), cniBinDir: place(cniBinDir), runDir: place(runDir) };
}
