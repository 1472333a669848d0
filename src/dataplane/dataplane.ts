// SPDX-License-Identifier: Apache-2.0
import { type Clock, systemClock } from "../core/clock.ts";
import type { Config } from "../core/config/config.ts";
import type { Stop } from "../core/disposable.ts";
import { AgentError, messageOf } from "../core/errors.ts";
import type {
  CapturePlan,
  CaptureSpec,
  Dataplane,
  EngineName,
  EngineTest,
  Examination,
  Observation,
  Unaccepted,
} from "../core/ports/dataplane.ts";
import type { NetnsHandle, NetnsId } from "../core/ports/netns.ts";
import type { Logger, Metrics } from "../core/ports/telemetry.ts";
import type { ZtunnelPeer } from "../core/ports/ztunnel.ts";
import type { VerdictCounts } from "../core/verdicts.ts";
import type { NativeBinding } from "../native/binding.ts";
import { Assignment, type Fallback, notCapturable } from "./assignment.ts";
import { Capture, type Superseded } from "./capture.ts";
import { chooseEngines, testEngines } from "./choose.ts";
import type { Engine } from "./engine.ts";
import { choiceFor } from "./engine-choice.ts";
import { kernelFacts } from "./examine.ts";
import { Preparation } from "./preparation.ts";
import { Presence } from "./presence.ts";
import { proxiedSockets } from "./proxied.ts";
import { giveBackPorts } from "./reserved-ports.ts";
import { removeRouting, routingPresent } from "./routes.ts";
import { familyObstacle, wrongState } from "./routing-state.ts";
import { restoreSysctls } from "./sysctls.ts";
import { unacceptedAt } from "./unaccepted.ts";
import { type UpstreamSettings, upstreamForm } from "./upstream/form.ts";
import { HandOver } from "./upstream/hand-over.ts";
import { Takeover } from "./upstream/takeover.ts";
import { upstreamPresent } from "./upstream/traces.ts";
import { UpstreamRules } from "./upstream/upstream.ts";
import { watchNetns } from "./watch.ts";

export interface DataplaneOptions {
  readonly binding: NativeBinding;
  readonly logger: Logger;
  readonly metrics: Metrics;
  readonly config: Pick<Config, "engine"> & UpstreamSettings;
  /** Every engine that this version has; see engines.ts. */
  readonly engines: readonly Engine[];
  /** The node's own netns; by default this process's. */
  readonly host?: NetnsHandle;
  readonly clock?: Clock;
}

const ABSENT: Observation = { mode: "absent", engine: undefined, differences: [] };

/** Steers pods' traffic with the best engine that works on this node, and that works for the pod. */
export class NodeDataplane implements Dataplane {
  readonly #engines: readonly Engine[];
  #tests: readonly EngineTest[] = [];
  #assignment: Assignment | undefined;
  readonly #presence: Presence;
  readonly #preparation: Preparation;
  readonly #upstream: UpstreamRules;
  readonly #takeover: Takeover;
  readonly #handOver: HandOver;
  readonly #capture: Capture;

  constructor(private readonly options: DataplaneOptions) {
    const { binding, logger, engines, host, config } = options;
    this.#engines = engines;
    this.#presence = new Presence(binding, engines);
    this.#preparation = new Preparation(binding, (netns) => this.#presence.sysctls(netns));
    this.#upstream = new UpstreamRules(binding);
    this.#takeover = new Takeover(binding, this.#upstream);
    const shared = { binding, presence: this.#presence, preparation: this.#preparation, upstream: this.#upstream };
    this.#handOver = new HandOver({ ...shared, form: () => upstreamForm(binding, host?.fd ?? null, config) });
    this.#capture = new Capture({
      ...{ ...shared, logger, takeover: this.#takeover },
      release: (netns) => this.release(netns),
    });
  }

  get engine(): EngineName {
    return this.#assigned.first.name;
  }

  engineFor(netns: NetnsHandle, spec: CaptureSpec): EngineName {
    return this.#assigned.best(netns, spec).name;
  }

  get tests(): readonly EngineTest[] {
    return this.#tests;
  }

  async start(): Promise<readonly EngineTest[]> {
    const { config, logger, metrics } = this.options;
    this.#tests = await testEngines(this.#engines);
    this.#assignment = new Assignment(chooseEngines(this.#engines, this.#tests, config.engine), logger, metrics);
    return this.#tests;
  }

  observe(netns: NetnsHandle, spec: CaptureSpec): Observation {
    const steering = this.#presence.steering(netns, spec);
    if (steering === undefined) return this.#takeover.foreign(netns);
    const { engine, observation } = steering;
    if (observation.mode === "draining" || observation.mode === "absent") return observation;
    const differences = [
      ...observation.differences,
      ...wrongState(this.options.binding, netns, spec, engine),
      ...this.#takeover.differences(netns, engine),
    ];
    const fallbacks: Fallback[] = [];
    const { value: best } = this.#assigned.candidates(netns, spec, fallbacks).next();
    if (best === undefined) differences.push(notCapturable(spec, fallbacks).message);
    else if (engine !== best) differences.push(`the engine is ${engine.name}, not ${best.name}`);
    for (const retired of this.#presence.idleBeside(netns, engine))
      differences.push(`engine ${retired.name} is not needed any more`);
    return differences.length === 0 ? observation : { mode: "differs", engine: engine.name, differences };
  }

  present(netns: NetnsHandle): boolean {
    const { binding } = this.options;
    return (
      this.#presence.of(netns).length > 0 || routingPresent(binding, netns.fd) || upstreamPresent(binding, netns.fd)
    );
  }

  examine(netns: NetnsHandle, spec: CaptureSpec | undefined): Examination {
    const observation = spec === undefined ? undefined : this.observe(netns, spec);
    const present = this.#presence.of(netns);
    return {
      facts: [
        ...kernelFacts(this.options.binding, netns, spec, observation),
        ...(spec === undefined
          ? present.map(({ name }) => ({ name: "capture", ok: false, text: `${name} is there` }))
          : []),
      ],
      counters: Object.assign({}, ...present.map((engine) => engine.counters?.(netns) ?? {})),
    };
  }

  verdicts(netns: NetnsHandle, engine: EngineName): VerdictCounts {
    return this.#engines.find(({ name }) => name === engine)?.verdicts(netns) ?? {};
  }

  plan(netns: NetnsHandle, spec: CaptureSpec, wanted?: EngineName): CapturePlan {
    const obstacle = familyObstacle(this.options.binding, netns, spec);
    if (obstacle !== undefined) {
      throw new AgentError("POD_NOT_CAPTURABLE", `${spec.pod} can't be captured: ${obstacle}`);
    }
    const { engine, others } = choiceFor(this.#assigned, this.#engines, this.#tests, netns, spec, wanted);
    const { changes, letters } = this.#preparation.plan(netns, spec, engine);
    const steering = engine.planned(netns, spec, { sysctls: letters });
    return { engine: engine.name, others, preparation: changes, steering };
  }

  mendShared(): readonly string[] {
    return this.#engines.flatMap((engine) => engine.mendShared?.() ?? []);
  }

  async prepare(netns: NetnsHandle, spec: CaptureSpec): Promise<void> {
    const engine = this.#assigned.best(netns, spec);
    // Refuses a bad value before anything is touched.
    engine.plan(spec);
    this.#preparation.prepare(netns, spec, engine);
  }

  async capture(netns: NetnsHandle, spec: CaptureSpec, keep = false): Promise<EngineName> {
    const untouched = !keep && this.#preparation.of(netns)?.untouched === true;
    const before = untouched ? ABSENT : this.observe(netns, spec);
    if (before.mode === "captured") return before.engine ?? this.engine;
    const obstacle = familyObstacle(this.options.binding, netns, spec);
    if (obstacle !== undefined) {
      throw new AgentError("POD_NOT_CAPTURABLE", `${spec.pod} can't be captured: ${obstacle}`);
    }
    for (const engine of this.#engines) {
      const reason = engine.unreachable?.(netns);
      if (reason !== undefined) throw new AgentError("ENGINE_UNREACHABLE", `${spec.pod} ${reason}`);
    }
    const fallbacks: Fallback[] = [];
    let failure: unknown;
    for (const engine of this.#assigned.candidates(netns, spec, fallbacks)) {
      let superseded: Superseded | undefined;
      try {
        superseded = await this.#capture.by(engine, netns, spec, { fresh: before.mode === "absent" && !keep, keep });
      } catch (error) {
        failure = error;
        fallbacks.push({ engine: engine.name, kind: "failed", reason: messageOf(error) });
        continue;
      }
      this.#assigned.assign(netns, spec, engine, fallbacks);
      if (superseded !== undefined) await this.#capture.supersede(engine, netns, spec, superseded);
      return engine.name;
    }
    if (failure === undefined) throw notCapturable(spec, fallbacks);
    throw failure;
  }

  async drain(netns: NetnsHandle, spec: CaptureSpec): Promise<void> {
    await this.#presence.drain(netns, spec);
    await this.#upstream.end(netns.fd);
  }

  async handOver(netns: NetnsHandle, spec: CaptureSpec): Promise<void> {
    await this.#handOver.perform(netns, spec);
  }

  meet(ztunnel: ZtunnelPeer): void {
    this.#tell("a ztunnel has come", (engine) => engine.meet?.(ztunnel));
  }

  listenersOpened(netns: NetnsHandle): void {
    this.#tell("ztunnel's listeners have changed", (engine) => engine.listenersOpened?.(netns));
  }

  unaccepted(netns: NetnsHandle): readonly Unaccepted[] {
    return unacceptedAt(this.options.binding, netns.fd);
  }

  proxiedConnections(netns: NetnsHandle): number {
    return proxiedSockets(this.options.binding, netns.fd).length;
  }

  async release(netns: NetnsHandle): Promise<void> {
    const { binding } = this.options;
    const letters = this.#preparation.letters(netns);
    for (const engine of this.#engines) await engine.remove(netns);
    await this.#upstream.remove(netns.fd);
    this.#preparation.forget(netns);
    restoreSysctls(binding, netns.fd, letters);
    giveBackPorts(binding, netns.fd);
    // Last: after a kill, the rule tells that the sysctls are still to be restored.
    removeRouting(binding, netns.fd);
  }

  watch(netns: NetnsHandle, changed: () => void): Stop {
    const { binding, clock = systemClock } = this.options;
    return watchNetns(binding, clock, netns.fd, changed);
  }

  collect(): void {
    this.#tell("pods may be gone", (engine) => engine.collect?.());
  }

  vacate(inUse: ReadonlySet<NetnsId>): readonly string[] {
    const kept: string[] = [];
    this.#tell("no agent of ours follows", (engine) => {
      const reason = engine.vacate?.(inUse);
      if (reason !== undefined) kept.push(reason);
    });
    return kept;
  }

  /** Gives back what the process holds; pods stay captured. */
  close(): void {
    for (const engine of this.#engines) engine.close();
  }

  #tell(news: string, tell: (engine: Engine) => void): void {
    for (const engine of this.#engines) {
      try {
        tell(engine);
      } catch (error) {
        const reason = messageOf(error);
        this.options.logger.error("an engine can't act on news", { engine: engine.name, news, reason });
      }
    }
  }

  get #assigned(): Assignment {
    if (this.#assignment === undefined) throw new AgentError("NO_ENGINE", "the dataplane has not been started");
    return this.#assignment;
  }
}
